// SPDX-License-Identifier: Apache-2.0
/* The JSON of credential_process, of the container endpoint and of IMDS. */
#define _GNU_SOURCE
#include "test_creds.h"

static struct s3_creds c;
static struct err e;

static int parse(const char *text)
{
	s3_creds_wipe(&c);
	memset(&e, 0, sizeof(e));
	return s3_creds_json_parse(text, strlen(text), &c, &e);
}

#define KEYS "\"AccessKeyId\":\"AKID\",\"SecretAccessKey\":\"" SECRET "\""

static void a_process_reply_is_read(void **state)
{
	assert_int_equal(parse("{\"Version\":1," KEYS ",\"SessionToken\":\"st\","
			       "\"Expiration\":\"2030-01-31T12:00:00Z\"}\n"),
			 0);
	assert_string_equal(c.access_key_id, "AKID");
	assert_string_equal(secret_bytes(&c.secret_key), SECRET);
	assert_string_equal(secret_bytes(&c.session_token), "st");
	assert_int_equal(c.expires, 1896091200);
}

static void a_container_reply_is_read(void **state)
{
	assert_int_equal(parse("{\"RoleArn\":\"r\"," KEYS ",\"Token\":\"t\",\"Expiration\":\"2030-01-31T12:00:00Z\"}"),
			 0);
	assert_string_equal(secret_bytes(&c.session_token), "t");
}

static void an_imds_reply_is_read(void **state)
{
	assert_int_equal(parse("{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\"," KEYS ",\"Token\":\"t\"}"), 0);
	assert_int_equal(c.expires, 0);
}

static void no_token_and_null_mean_static_keys(void **state)
{
	assert_int_equal(parse("{" KEYS ",\"Token\":null,\"Expiration\":null}"), 0);
	assert_int_equal(c.session_token.len, 0);
	assert_int_equal(c.expires, 0);
}

static void a_refusal_is_named_by_its_code_alone(void **state)
{
	assert_int_equal(parse("{\"Code\":\"AssumeRoleUnauthorizedAccess\",\"Message\":\"" SECRET "\"}"), -EACCES);
	assert_contains(e.msg, "AssumeRoleUnauthorizedAccess");
	assert_no_secret(e.msg);
	assert_int_equal(parse("{\"Code\":\"" SECRET "\"}"), -EACCES);
	assert_no_secret(e.msg);
}

static void a_version_that_is_not_one_is_an_error(void **state)
{
	assert_int_equal(parse("{\"Version\":2," KEYS "}"), -EBADMSG);
	assert_int_equal(parse("{\"Version\":\"1\"," KEYS "}"), -EBADMSG);
	assert_int_equal(creds_json_parse("{" KEYS "}", strlen("{" KEYS "}"), true, &c, &e), -EBADMSG);
}

static void broken_documents_are_errors_that_show_no_secret(void **state)
{
	static const char *const texts[] = {
		"",
		"[]",
		"\"" SECRET "\"",
		"{" KEYS,
		"{" KEYS "} " SECRET,
		"{\"SecretAccessKey\":\"" SECRET "\"}",
		"{\"AccessKeyId\":\"AKID\"}",
		"{\"AccessKeyId\":\"\",\"SecretAccessKey\":\"" SECRET "\"}",
		"{\"AccessKeyId\":1,\"SecretAccessKey\":\"" SECRET "\"}",
		"{\"AccessKeyId\":\"A\\u0000B\",\"SecretAccessKey\":\"" SECRET "\"}",
		"{" KEYS "," KEYS "}",
		"{" KEYS ",\"Expiration\":\"" SECRET "\"}",
		"{" KEYS ",\"Expiration\":1896091200}",
		"{" KEYS ",\"Token\":{\"a\":\"" SECRET "\"}}",
		"{\"SecretAccessKey\":" SECRET "}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (parse(texts[i]) != -EBADMSG)
			fail_msg("accepted: %s", texts[i]);
		assert_true(e.msg[0]);
		assert_no_secret(e.msg);
		assert_string_equal(c.access_key_id, "");
		assert_int_equal(c.secret_key.len, 0);
	}
}

static void sizes_are_bounded(void **state)
{
	static char text[CREDS_REPLY_MAX_BYTES + 2];
	size_t head;

	strcpy(text, "{\"SecretAccessKey\":\"s\",\"AccessKeyId\":\"");
	head = strlen(text);
	memset(text + head, 'A', 256);
	strcpy(text + head + 256, "\"}");
	assert_int_equal(parse(text), -EBADMSG);
	strcpy(text + head + 255, "\"}");
	assert_int_equal(parse(text), 0);

	strcpy(text, "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"");
	head = strlen(text);
	memset(text + head, 's', SECRET_MAX_BYTES + 1);
	strcpy(text + head + SECRET_MAX_BYTES + 1, "\"}");
	assert_int_equal(parse(text), -EBADMSG);

	memset(text, ' ', sizeof(text) - 1);
	memcpy(text, "{" KEYS "}", strlen("{" KEYS "}"));
	assert_int_equal(parse(text), -EBADMSG);
	memset(text, '[', sizeof(text) - 2);
	text[sizeof(text) - 2] = '\0';
	assert_int_equal(parse(text), -EBADMSG);
}

static int teardown(void **state)
{
	s3_creds_wipe(&c);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_reply_is_read),
		cmocka_unit_test(a_container_reply_is_read),
		cmocka_unit_test(an_imds_reply_is_read),
		cmocka_unit_test(no_token_and_null_mean_static_keys),
		cmocka_unit_test(a_refusal_is_named_by_its_code_alone),
		cmocka_unit_test(a_version_that_is_not_one_is_an_error),
		cmocka_unit_test(broken_documents_are_errors_that_show_no_secret),
		cmocka_unit_test(sizes_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
