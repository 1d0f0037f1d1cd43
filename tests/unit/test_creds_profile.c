// SPDX-License-Identifier: Apache-2.0
/* The profile files' parser: the dialect that the AWS tools write, and what people make of it. */
#define _GNU_SOURCE
#include "test_creds.h"

static struct s3_profile_values v;
static struct err e;

static int parse(const char *text, const char *profile, bool is_config)
{
	s3_profile_values_wipe(&v);
	memset(&e, 0, sizeof(e));
	return s3_profile_parse(text, strlen(text), profile, is_config, &v, &e);
}

static void all_keys_are_read(void **state)
{
	assert_int_equal(parse("[default]\n"
			       "aws_access_key_id = AKID\n"
			       "aws_secret_access_key = " SECRET "\n"
			       "aws_session_token = " TOKEN "\n"
			       "region = eu-west-1\n"
			       "credential_process = /bin/helper --a \"b c\"\n"
			       "role_arn = arn:aws:iam::1:role/r\n"
			       "web_identity_token_file = /run/token\n"
			       "role_session_name = me\n"
			       "endpoint_url = https://s3.example.com\n"
			       "ca_bundle = /etc/ca.pem\n",
			       "default", false),
			 0);
	assert_true(v.found);
	assert_string_equal(v.access_key_id, "AKID");
	assert_string_equal(secret_bytes(&v.secret_key), SECRET);
	assert_string_equal(secret_bytes(&v.session_token), TOKEN);
	assert_string_equal(v.region, "eu-west-1");
	assert_string_equal(v.credential_process, "/bin/helper --a \"b c\"");
	assert_string_equal(v.role_arn, "arn:aws:iam::1:role/r");
	assert_string_equal(v.web_identity_token_file, "/run/token");
	assert_string_equal(v.role_session_name, "me");
	assert_string_equal(v.endpoint_url, "https://s3.example.com");
	assert_string_equal(v.ca_bundle, "/etc/ca.pem");
	assert_string_equal(v.login_key, "");
}

static void other_profiles_are_left_alone(void **state)
{
	const char *text = "[a]\naws_access_key_id=A\n[b]\naws_access_key_id=B\n[c]\naws_access_key_id=C\n";

	assert_int_equal(parse(text, "b", false), 0);
	assert_string_equal(v.access_key_id, "B");
	assert_int_equal(parse(text, "d", false), 0);
	assert_false(v.found);
	assert_string_equal(v.access_key_id, "");
}

static void config_sections_need_the_word_profile(void **state)
{
	const char *text =
		"[a]\nregion=bare\n[profile  a]\nregion=prefixed\n[default]\nregion=home\n"
		"[profile \"with space\"]\nregion=quoted\n[sso-session a]\nregion=sso\n";

	assert_int_equal(parse(text, "a", true), 0);
	assert_string_equal(v.region, "prefixed");
	assert_int_equal(parse(text, "default", true), 0);
	assert_string_equal(v.region, "home");
	assert_int_equal(parse(text, "with space", true), 0);
	assert_string_equal(v.region, "quoted");
	assert_int_equal(parse(text, "a", false), 0);
	assert_string_equal(v.region, "bare");
	assert_int_equal(parse("[a]\nregion=bare\n", "a", true), 0);
	assert_false(v.found);
}

static void profile_default_wins_over_default_in_any_order(void **state)
{
	assert_int_equal(parse("[default]\nregion=x\nrole_arn=r\n[profile default]\nregion=y\n", "default", true), 0);
	assert_string_equal(v.region, "y");
	assert_string_equal(v.role_arn, "");
	assert_int_equal(parse("[profile default]\nregion=y\n[default]\nregion=x\n", "default", true), 0);
	assert_string_equal(v.region, "y");
}

static void comments_and_blanks_are_skipped(void **state)
{
	assert_int_equal(parse("# head\n; other\n\n   \t\n[default] # why\n  # indented\n"
			       "\taws_access_key_id\t=\tAKID  # mine\n"
			       "\tregion = us#1 ; here\n\trole_arn=#none\n",
			       "default", false),
			 0);
	assert_string_equal(v.access_key_id, "AKID");
	assert_string_equal(v.region, "us#1");
	assert_string_equal(v.role_arn, "");
}

static void keys_are_read_in_any_case(void **state)
{
	assert_int_equal(parse("[default]\nAWS_Access_Key_ID=AKID\n", "default", false), 0);
	assert_string_equal(v.access_key_id, "AKID");
}

static void names_of_profiles_are_not(void **state)
{
	assert_int_equal(parse("[Prod]\nregion=x\n", "prod", false), 0);
	assert_false(v.found);
}

static void crlf_bom_and_a_missing_last_newline_are_fine(void **state)
{
	assert_int_equal(parse("\xef\xbb\xbf[default]\r\naws_access_key_id = AKID\r\n"
			       "aws_secret_access_key = " SECRET,
			       "default", false),
			 0);
	assert_string_equal(v.access_key_id, "AKID");
	assert_string_equal(secret_bytes(&v.secret_key), SECRET);
}

static void values_may_hold_equal_signs(void **state)
{
	assert_int_equal(parse("[default]\naws_secret_access_key=a=b==\n", "default", false), 0);
	assert_string_equal(secret_bytes(&v.secret_key), "a=b==");
}

static void nested_settings_are_not_the_profiles_own(void **state)
{
	assert_int_equal(parse("[default]\nregion = home\ns3 =\n  region = nested\n  max_queue_size = 1000\n"
			       "  not a setting\nrole_arn = r\n",
			       "default", true),
			 0);
	assert_string_equal(v.region, "home");
	assert_string_equal(v.role_arn, "r");
}

static void a_value_of_ours_over_two_lines_is_an_error(void **state)
{
	assert_int_equal(parse("[default]\ncredential_process = a\n  b\n", "default", true), -EBADMSG);
	assert_contains(e.msg, "line 3: credential_process");
}

static void sections_of_one_name_are_merged(void **state)
{
	assert_int_equal(parse("[a]\nregion=one\nrole_arn=r\n[b]\nregion=no\n[a]\nregion=two\n", "a", false), 0);
	assert_string_equal(v.region, "two");
	assert_string_equal(v.role_arn, "r");
}

static void a_later_empty_value_removes_the_earlier(void **state)
{
	assert_int_equal(parse("[a]\naws_session_token=t\naws_session_token=\n", "a", false), 0);
	assert_int_equal(v.session_token.len, 0);
}

static void interactive_logins_are_noticed(void **state)
{
	assert_int_equal(parse("[profile a]\nsso_session = corp\nsso_account_id = 1\n", "a", true), 0);
	assert_contains(v.login_key, "sso_");
	assert_int_equal(parse("[profile a]\nlogin_session = x\n", "a", true), 0);
	assert_string_equal(v.login_key, "login_session");
}

static void broken_lines_are_errors_with_their_number(void **state)
{
	static const struct {
		const char *text, *part;
	} cases[] = {
		{ "[default\nregion=x\n", "line 1" },
		{ "\n[]\n", "line 2" },
		{ "[default] x\n", "line 1" },
		{ "region=x\n", "line 1" },
		{ "[default]\n\nwhat is this\n", "line 3" },
		{ "[default]\n= x\n", "line 2" },
		{ "[other]\n<html>\n", "line 2" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text, "default", false), -EBADMSG);
		assert_contains(e.msg, cases[i].part);
		assert_false(v.found);
	}
}

static void a_zero_byte_is_an_error(void **state)
{
	static const char text[] = "[default]\nregion=a\0b\n";

	s3_profile_values_wipe(&v);
	assert_int_equal(s3_profile_parse(text, sizeof(text) - 1, "default", false, &v, &e), -EBADMSG);
}

static void what_does_not_fit_is_an_error_without_the_value(void **state)
{
	static char text[20000];

	strcpy(text, "[default]\naws_secret_access_key = " SECRET);
	memset(text + strlen(text), 'x', SECRET_MAX_BYTES);
	assert_int_equal(parse(text, "default", false), -EBADMSG);
	assert_contains(e.msg, "line 2: aws_secret_access_key");
	assert_no_secret(e.msg);
	memset(text, 0, sizeof(text));
	strcpy(text, "[default]\nregion = ");
	memset(text + strlen(text), 'x', 64);
	assert_int_equal(parse(text, "default", false), -EBADMSG);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(parse(text, "default", false), -EBADMSG);
}

static void an_empty_file_has_no_profile(void **state)
{
	assert_int_equal(parse("", "default", false), 0);
	assert_false(v.found);
}

static int teardown(void **state)
{
	s3_profile_values_wipe(&v);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_keys_are_read),
		cmocka_unit_test(other_profiles_are_left_alone),
		cmocka_unit_test(config_sections_need_the_word_profile),
		cmocka_unit_test(profile_default_wins_over_default_in_any_order),
		cmocka_unit_test(comments_and_blanks_are_skipped),
		cmocka_unit_test(keys_are_read_in_any_case),
		cmocka_unit_test(names_of_profiles_are_not),
		cmocka_unit_test(crlf_bom_and_a_missing_last_newline_are_fine),
		cmocka_unit_test(values_may_hold_equal_signs),
		cmocka_unit_test(nested_settings_are_not_the_profiles_own),
		cmocka_unit_test(a_value_of_ours_over_two_lines_is_an_error),
		cmocka_unit_test(sections_of_one_name_are_merged),
		cmocka_unit_test(a_later_empty_value_removes_the_earlier),
		cmocka_unit_test(interactive_logins_are_noticed),
		cmocka_unit_test(broken_lines_are_errors_with_their_number),
		cmocka_unit_test(a_zero_byte_is_an_error),
		cmocka_unit_test(what_does_not_fit_is_an_error_without_the_value),
		cmocka_unit_test(an_empty_file_has_no_profile),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
