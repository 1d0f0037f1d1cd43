// SPDX-License-Identifier: Apache-2.0
/* The sources and their order: what is configured and broken is an error, and no other identity takes its place. */
#define _GNU_SOURCE
#include "test_creds.h"

static struct dir dir;
static struct env env;
static struct s3_creds_config cfg;
static struct s3_provider *p;
static struct s3_creds c;
static struct err e;

static int start(void)
{
	int rc;

	memset(&e, 0, sizeof(e));
	rc = s3_provider_start(&cfg, &p, &e);
	if (rc < 0) {
		assert_true(e.msg[0]);
		assert_no_secret(e.msg);
		return rc;
	}
	return s3_provider_get(p, &c);
}

static int setup(void **state)
{
	dir_new(&dir);
	memset(&env, 0, sizeof(env));
	env_set(&env, "HOME", dir.path);
	/* Closed ports answer at once: there is no IMDS. */
	cfg = (struct s3_creds_config){ .getenv_fn = env_get,
					.getenv_ctx = &env,
					.imds_endpoint = "http://127.0.0.1:1" };
	return 0;
}

static int teardown(void **state)
{
	p = s3_provider_stop(p);
	s3_creds_wipe(&c);
	dir_free(&dir);
	return 0;
}

/* --- environment and order --- */

static void source_names_are_parsed(void **state)
{
	static const struct {
		const char *text;
		enum s3_creds_source source;
		const char *profile;
	} good[] = {
		{ "chain", S3_CREDS_CHAIN, NULL },          { "env", S3_CREDS_ENV, NULL },
		{ "profile:a:b", S3_CREDS_PROFILE, "a:b" }, { "web-identity", S3_CREDS_WEB_IDENTITY, NULL },
		{ "container", S3_CREDS_CONTAINER, NULL },  { "imds", S3_CREDS_IMDS, NULL },
		{ "anonymous", S3_CREDS_ANONYMOUS, NULL },
	};
	static const char *const bad[] = { "", "profile", "profile:", "Env", "env ", "sso" };
	enum s3_creds_source source;
	const char *profile;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(s3_creds_source_parse(good[i].text, &source, &profile), 0);
		assert_int_equal(source, good[i].source);
		if (good[i].profile)
			assert_string_equal(profile, good[i].profile);
		else
			assert_null(profile);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(s3_creds_source_parse(bad[i], &source, &profile), -EINVAL);
}

static void the_environment_comes_first(void **state)
{
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET);
	env_set(&env, "AWS_SESSION_TOKEN", "st");
	env_set(&env, "AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent");
	env_set(&env, "AWS_REGION", "eu-north-1");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "ENVKEY");
	assert_string_equal(secret_bytes(&c.secret_key), SECRET);
	assert_string_equal(secret_bytes(&c.session_token), "st");
	assert_int_equal(c.expires, 0);
	assert_string_equal(s3_provider_describe(p), "env");
	assert_string_equal(s3_provider_region(p), "eu-north-1");
}

static void half_an_environment_is_an_error(void **state)
{
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	dir_write(&dir, "credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n", 0600);
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "AWS_SECRET_ACCESS_KEY is not");
	env.nr--;
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET);
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "AWS_ACCESS_KEY_ID is not");
}

static void a_line_end_in_a_key_is_an_error(void **state)
{
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET "\n");
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "secret access key");
	env.nr -= 2;
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY\r\nx-evil: 1");
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET);
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "access key id");
}

static void nothing_anywhere_names_all_that_was_looked_at(void **state)
{
	assert_int_equal(start(), -ENOKEY);
	assert_contains(e.msg, "AWS_ACCESS_KEY_ID");
	assert_contains(e.msg, "AWS_WEB_IDENTITY_TOKEN_FILE");
	assert_contains(e.msg, "/.aws/credentials");
	assert_contains(e.msg, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	assert_contains(e.msg, "imds (http://127.0.0.1:1 gives no answer");
	assert_contains(e.msg, "--no-sign-request");
}

static void anonymous_is_only_what_was_asked_for(void **state)
{
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	cfg.source = S3_CREDS_ANONYMOUS;
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "");
	assert_string_equal(s3_provider_describe(p), "anonymous");
}

static void a_pinned_source_never_falls_through(void **state)
{
	static const enum s3_creds_source pins[] = { S3_CREDS_PROFILE, S3_CREDS_WEB_IDENTITY, S3_CREDS_CONTAINER,
						     S3_CREDS_IMDS };

	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET);
	for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]); i++) {
		cfg.source = pins[i];
		assert_int_equal(start(), -ENOKEY);
		assert_contains(e.msg, s3_creds_source_name(pins[i]));
		assert_null(strstr(e.msg, "no-sign-request"));
	}
	env.nr = 1;
	mkdir(dir.path, 0700);
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE",
		dir_write(&dir, "file", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n", 0600));
	cfg.source = S3_CREDS_ENV;
	assert_int_equal(start(), -ENOKEY);
	cfg.source = S3_CREDS_CHAIN;
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "A");
}

/* --- profiles --- */

static void both_files(const char *credentials, const char *config)
{
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE", dir_write(&dir, "credentials", credentials, 0600));
	env_set(&env, "AWS_CONFIG_FILE", dir_write(&dir, "config", config, 0600));
}

static void profiles_in_the_home_directory_are_found(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/.aws", dir.path);
	assert_int_equal(mkdir(path, 0700), 0);
	dir_write(&dir, ".aws/credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n", 0600);
	dir_write(&dir, ".aws/config", "[default]\nregion=ap-south-1\n", 0600);
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "A");
	assert_string_equal(s3_provider_describe(p), "profile default");
	assert_string_equal(s3_provider_region(p), "ap-south-1");
}

static void a_tilde_is_the_home_directory(void **state)
{
	dir_write(&dir, "mine", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n", 0600);
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE", "~/mine");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "A");
}

static void aws_profile_chooses_and_must_exist(void **state)
{
	both_files(
		"[default]\naws_access_key_id=A\naws_secret_access_key=s\n"
		"[other]\naws_access_key_id=B\naws_secret_access_key=s\n",
		"");
	env_set(&env, "AWS_PROFILE", "other");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "B");
	p = s3_provider_stop(p);
	env.nr--;
	env_set(&env, "AWS_PROFILE", "absent");
	assert_int_equal(start(), -ENOENT);
	assert_contains(e.msg, "absent");
}

static void a_named_profile_comes_before_the_environment(void **state)
{
	both_files("[other]\naws_access_key_id=B\naws_secret_access_key=s\n", "");
	env_set(&env, "AWS_ACCESS_KEY_ID", "ENVKEY");
	env_set(&env, "AWS_SECRET_ACCESS_KEY", SECRET);
	cfg.profile = "other";
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "B");
	p = s3_provider_stop(p);
	cfg.profile = "absent";
	assert_int_equal(start(), -ENOENT);
}

static void keys_are_never_mixed_from_two_files(void **state)
{
	both_files("[default]\naws_access_key_id=A\n", "[default]\naws_secret_access_key=" SECRET "\n");
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "no aws_secret_access_key");
}

static void the_credentials_file_wins_over_the_config_file(void **state)
{
	both_files("[default]\naws_access_key_id=A\naws_secret_access_key=s\n",
		   "[default]\naws_access_key_id=B\naws_secret_access_key=s\naws_session_token=t\n");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "A");
	assert_int_equal(c.session_token.len, 0);
}

static void a_file_that_was_named_must_exist(void **state)
{
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials");
	assert_int_equal(start(), -ENOENT);
	assert_contains(e.msg, "AWS_SHARED_CREDENTIALS_FILE");
	env.nr--;
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
	assert_int_equal(start(), -ENOKEY);
	env.nr--;
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE", dir.path);
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "regular file");
}

static void a_broken_file_is_an_error_with_its_line(void **state)
{
	both_files("[default]\nregion=x\n<html>" SECRET "\n", "");
	assert_int_equal(start(), -EBADMSG);
	assert_contains(e.msg, "/credentials: line 3");
}

static void roles_through_other_profiles_and_logins_are_refused(void **state)
{
	both_files(
		"[a]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=b\n"
		"[b]\naws_access_key_id=B\naws_secret_access_key=s\n",
		"[profile c]\nsso_session=corp\nsso_account_id=1\nsso_role_name=r\n");
	cfg.profile = "a";
	assert_int_equal(start(), -EOPNOTSUPP);
	assert_contains(e.msg, "source_profile");
	cfg.profile = "c";
	assert_int_equal(start(), -EOPNOTSUPP);
	assert_contains(e.msg, "sso_");
}

static void a_profile_may_run_a_process(void **state)
{
	char config[512];
	const char *script = dir_write(&dir, "helper",
				       "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"PROC\","
				       "\"SecretAccessKey\":\"s\"}'\n",
				       0755);

	snprintf(config, sizeof(config), "[default]\ncredential_process = %s --secret " SECRET "\n", script);
	both_files("", config);
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "PROC");
	p = s3_provider_stop(p);
	dir_write(&dir, "helper", "#!/bin/sh\necho " SECRET "\nexit 1\n", 0755);
	assert_int_equal(start(), -EIO);
	assert_contains(e.msg, "credential_process");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(source_names_are_parsed),
		test(the_environment_comes_first),
		test(half_an_environment_is_an_error),
		test(a_line_end_in_a_key_is_an_error),
		test(nothing_anywhere_names_all_that_was_looked_at),
		test(anonymous_is_only_what_was_asked_for),
		test(a_pinned_source_never_falls_through),
		test(profiles_in_the_home_directory_are_found),
		test(a_tilde_is_the_home_directory),
		test(aws_profile_chooses_and_must_exist),
		test(a_named_profile_comes_before_the_environment),
		test(keys_are_never_mixed_from_two_files),
		test(the_credentials_file_wins_over_the_config_file),
		test(a_file_that_was_named_must_exist),
		test(a_broken_file_is_an_error_with_its_line),
		test(roles_through_other_profiles_and_logins_are_refused),
		test(a_profile_may_run_a_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
