// SPDX-License-Identifier: Apache-2.0
/* Lists: what servers send, and what hostile or broken ones might. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "s3/uri.h"
#include "s3/xml.h"

#define HEAD                                           \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" \
	"<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
#define URL "<EncodingType>url</EncodingType>"
#define TAIL "<IsTruncated>false</IsTruncated></ListBucketResult>"
#define OBJECT(key)                                                                \
	"<Contents><Key>" key                                                      \
	"</Key><LastModified>2026-11-23T08:34:59.000Z</LastModified>"              \
	"<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>12</Size>" \
	"<StorageClass>STANDARD</StorageClass></Contents>"
#define PREFIX(p) "<CommonPrefixes><Prefix>" p "</Prefix></CommonPrefixes>"

struct seen {
	struct buf text; /* "key\n" for objects, "prefix|\n" for common prefixes */
	struct s3_list_object last;
	char last_key[S3_KEY_MAX + 1];
	size_t nr;
	size_t stop_at; /* 0 = never */
};

static struct seen seen;
static char token[8192];

static int on_object(void *ctx, const struct s3_list_object *o)
{
	struct seen *s = ctx;

	assert_int_equal(o->key[o->key_len], '\0');
	s->last = *o;
	memcpy(s->last_key, o->key, o->key_len + 1);
	if (++s->nr == s->stop_at)
		return -EINVAL;
	return buf_addf(&s->text, "%s\n", o->key);
}

static int on_prefix(void *ctx, const char *prefix, size_t len)
{
	struct seen *s = ctx;

	assert_int_equal(prefix[len], '\0');
	s->nr++;
	return buf_addf(&s->text, "%s|\n", prefix);
}

static const struct s3_list_ops ops = { .object = on_object, .common_prefix = on_prefix };

static int parse_steps(const char *text, size_t len, size_t step)
{
	struct s3_list_parser *p = s3_list_parser_new(&ops, &seen);
	const char *t = NULL;
	int rc = 0;

	assert_non_null(p);
	buf_clear(&seen.text);
	seen.nr = 0;
	for (size_t at = 0; at < len && !rc; at += step)
		rc = s3_list_parser_feed(p, text + at, min_of(step, len - at));
	if (rc)
		assert_int_equal(s3_list_parser_feed(p, "x", 1), rc);
	rc = s3_list_parser_finish(p, &t);
	token[0] = '\0';
	if (!rc)
		strcpy(token, t);
	p = s3_list_parser_free(p);
	assert_null(p);
	return rc;
}

static int parse(const char *text)
{
	return parse_steps(text, strlen(text), SIZE_MAX / 2);
}

static int setup(void **state)
{
	memset(&seen, 0, sizeof(seen));
	buf_init(&seen.text, 64 << 20);
	return 0;
}

static int teardown(void **state)
{
	buf_done(&seen.text);
	return 0;
}

static const char page[] = HEAD
	"<Name>b</Name><Prefix>p/</Prefix><KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys>"
	"<Delimiter>/</Delimiter>" URL
	"<IsTruncated>true</IsTruncated>"
	"<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>"
	"<Contents><Key>p/a+b%2Bc</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"
	"<ETag>\"fba9dede5f27731c9771645a39863328-7\"</ETag><Size>434234</Size><StorageClass>GLACIER</StorageClass>"
	"<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
	"<Owner><ID>75aa57f0</ID><DisplayName>d</DisplayName></Owner>"
	"<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents>" PREFIX("p/x%2Fy/")
		OBJECT("p/%C3%A9") "</ListBucketResult>\n";

static void a_page_is_read_whole(void **state)
{
	assert_int_equal(parse(page), 0);
	assert_string_equal(buf_str(&seen.text), "p/a b+c\np/x/y/|\np/\xc3\xa9\n");
	assert_string_equal(token, "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=");
}

static void every_field_of_an_object_arrives(void **state)
{
	assert_int_equal(parse(HEAD URL "<Contents><Key>k</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"
					"<ETag>\"fba9-7\"</ETag><Size>9223372036854775807</Size>"
					"<StorageClass>DEEP_ARCHIVE</StorageClass></Contents>" TAIL),
			 0);
	assert_string_equal(seen.last_key, "k");
	assert_int_equal(seen.last.key_len, 1);
	assert_true(seen.last.size == INT64_MAX);
	assert_int_equal(seen.last.mtime, 1255369830);
	assert_string_equal(seen.last.etag, "fba9-7");
	assert_int_equal(seen.last.storage_class, S3_CLASS_DEEP_ARCHIVE);
	assert_string_equal(seen.last.storage_class_name, "DEEP_ARCHIVE");
	assert_string_equal(token, "");
}

static void an_object_inherits_nothing_from_the_one_before(void **state)
{
	assert_int_equal(parse(HEAD URL
			       "<Contents><Key>a</Key><Size>7</Size><ETag>e</ETag><StorageClass>GLACIER</StorageClass>"
			       "<LastModified>2009-10-12T17:50:30Z</LastModified></Contents>"
			       "<Contents><Size>1</Size><Key>b</Key></Contents>" TAIL),
			 0);
	assert_string_equal(seen.last_key, "b");
	assert_string_equal(seen.last.etag, "");
	assert_string_equal(seen.last.storage_class_name, "");
	assert_int_equal(seen.last.storage_class, S3_CLASS_STANDARD);
	assert_int_equal(seen.last.mtime, 0);
	assert_int_equal(parse(HEAD URL
			       "<Contents><Key>a</Key><Size>7</Size></Contents><Contents><Key>b</Key></Contents>" TAIL),
			 -EBADMSG);
}

static void any_cut_of_the_bytes_gives_the_same(void **state)
{
	for (size_t step = 1; step < 40; step++) {
		assert_int_equal(parse_steps(page, sizeof(page) - 1, step), 0);
		assert_string_equal(buf_str(&seen.text), "p/a b+c\np/x/y/|\np/\xc3\xa9\n");
	}
}

static void list_truncated_body_is_an_error(void **state)
{
	/* Without the newline at its end, every shorter document lacks something. */
	for (size_t len = 0; len < sizeof(page) - 2; len++)
		assert_int_equal(parse_steps(page, len, SIZE_MAX / 2), -EBADMSG);
}

static void an_empty_list_is_not_an_error(void **state)
{
	assert_int_equal(parse(HEAD TAIL), 0);
	assert_int_equal(seen.nr, 0);
	assert_int_equal(parse("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"), 0);
}

static void keys_wait_until_a_late_encoding_type_is_known(void **state)
{
	assert_int_equal(parse(HEAD OBJECT("a+b%2Fc") PREFIX("d+e/") URL OBJECT("f+g") TAIL), 0);
	assert_string_equal(buf_str(&seen.text), "a b/c\nd e/|\nf g\n");
}

static void without_an_encoding_type_keys_are_as_written(void **state)
{
	assert_int_equal(
		parse(HEAD OBJECT("a+b%2F%zz&amp;&lt;c&#x9;") "<EncodingType></EncodingType>" PREFIX("100%/") TAIL), 0);
	assert_string_equal(buf_str(&seen.text), "a+b%2F%zz&<c\t\n100%/|\n");
}

static void a_list_without_encoding_that_breaks_off_hands_out_nothing(void **state)
{
	assert_int_equal(parse(HEAD OBJECT("a") OBJECT("b")), -EBADMSG);
	assert_int_equal(seen.nr, 0);
}

static void keys_may_hold_any_byte(void **state)
{
	assert_int_equal(parse(HEAD URL OBJECT("%01%7F%FF%0A%25%2B%22+/.././/%E2%82%AC") TAIL), 0);
	assert_string_equal(seen.last_key, "\x01\x7f\xff\n%+\" /.././/\xe2\x82\xac");
	assert_int_equal(parse(HEAD URL OBJECT("a%00b") TAIL), 0);
	assert_int_equal(seen.last.key_len, 3);
	assert_memory_equal(seen.last_key, "a\0b", 4);
}

static void namespaces_and_their_prefixes_are_ignored(void **state)
{
	assert_int_equal(
		parse("<s3:ListBucketResult xmlns:s3=\"x\"><s3:IsTruncated>false</s3:IsTruncated>"
		      "<s3:Contents><s3:Key>k</s3:Key><s3:Size>1</s3:Size></s3:Contents></s3:ListBucketResult>"),
		0);
	assert_string_equal(seen.last_key, "k");
}

static void fields_elsewhere_are_not_taken(void **state)
{
	assert_int_equal(
		parse(HEAD URL
		      "<Owner><IsTruncated>true</IsTruncated><Contents><Key>x</Key></Contents></Owner>"
		      "<Key>y</Key><Prefix>z</Prefix>"
		      "<Contents><Key>k</Key><Size>1</Size><Owner><Key>no</Key><Size>9</Size></Owner></Contents>" TAIL),
		0);
	assert_string_equal(buf_str(&seen.text), "k\n");
	assert_int_equal(seen.last.size, 1);
}

static void foreign_documents_are_not_empty_directories(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"<html><body>It works</body></html>",
		"<Error><Code>InternalError</Code></Error>",
		"<ListBucketResultX><IsTruncated>false</IsTruncated></ListBucketResultX>",
		"<a><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult></a>",
		"<ListAllMyBucketsResult/>",
		"{\"IsTruncated\":false}",
		"\x1f\x8b\x08\x00garbage",
		HEAD "</ListBucketResult>",
		HEAD "<IsTruncated>maybe</IsTruncated></ListBucketResult>",
		HEAD "<IsTruncated></IsTruncated></ListBucketResult>",
		HEAD TAIL "<ListBucketResult/>",
		HEAD TAIL "trailing",
		HEAD "</IsTruncated>" TAIL,
	};

	for (size_t i = 0; i < array_len(texts); i++)
		assert_int_equal(parse(texts[i]), -EBADMSG);
}

static void a_truncated_list_must_say_how_it_goes_on(void **state)
{
	assert_int_equal(parse(HEAD "<IsTruncated>true</IsTruncated></ListBucketResult>"), -EBADMSG);
	assert_int_equal(parse(HEAD "<IsTruncated>true</IsTruncated><NextContinuationToken/></ListBucketResult>"),
			 -EBADMSG);
	assert_int_equal(parse(HEAD
			       "<NextContinuationToken>t&amp;u</NextContinuationToken><IsTruncated>true</IsTruncated>"
			       "</ListBucketResult>"),
			 0);
	assert_string_equal(token, "t&u");
	assert_int_equal(parse(HEAD "<NextContinuationToken>t</NextContinuationToken>" TAIL), 0);
	assert_string_equal(token, "");
}

static void malformed_fields_are_errors(void **state)
{
	static const char *const texts[] = {
		HEAD URL "<Contents><Key>k</Key><Size>-1</Size></Contents>" TAIL,
		HEAD URL "<Contents><Key>k</Key><Size></Size></Contents>" TAIL,
		HEAD URL "<Contents><Key>k</Key><Size> 1</Size></Contents>" TAIL,
		HEAD URL "<Contents><Key>k</Key><Size>9223372036854775808</Size></Contents>" TAIL,
		HEAD URL "<Contents><Key></Key><Size>1</Size></Contents>" TAIL,
		HEAD URL "<Contents><Size>1</Size></Contents>" TAIL,
		HEAD URL "<Contents/>" TAIL,
		HEAD URL "<Contents><Key>%4</Key><Size>1</Size></Contents>" TAIL,
		HEAD URL "<Contents><Key>a<b/>c</Key><Size>1</Size></Contents>" TAIL,
		HEAD URL "<Contents><Key>k</Key><Size>1</Size><ETag>\"a\r\nb\"</ETag></Contents>" TAIL,
		HEAD URL "<Contents><Key>k</Key><Size>1</Size><LastModified>yesterday</LastModified></Contents>" TAIL,
		HEAD URL PREFIX("") TAIL,
		HEAD URL PREFIX("%") TAIL,
		HEAD "<EncodingType>base64</EncodingType>" TAIL,
		HEAD "<Contents><Key>\xff</Key><Size>1</Size></Contents>" TAIL,
	};

	for (size_t i = 0; i < array_len(texts); i++) {
		assert_int_equal(parse(texts[i]), -EBADMSG);
		assert_int_equal(seen.nr, 0);
	}
}

static void document_types_and_entities_are_refused(void **state)
{
	static const char *const texts[] = {
		"<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]>" HEAD OBJECT("&b;") TAIL,
		"<?xml version=\"1.0\"?><!DOCTYPE ListBucketResult [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>"
		"<ListBucketResult>" OBJECT("&x;") TAIL,
		"<!DOCTYPE ListBucketResult><ListBucketResult>" TAIL,
		"<!DOCTYPE ListBucketResult SYSTEM \"http://h/x.dtd\"><ListBucketResult>" TAIL,
		HEAD OBJECT("&undefined;") TAIL,
	};

	for (size_t i = 0; i < array_len(texts); i++) {
		assert_int_equal(parse(texts[i]), -EBADMSG);
		assert_int_equal(seen.nr, 0);
	}
}

static int parse_repeated(const char *before, const char *part, size_t nr, const char *after)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 200 << 20);
	assert_int_equal(buf_add_str(&b, before), 0);
	for (size_t i = 0; i < nr; i++)
		assert_int_equal(buf_add_str(&b, part), 0);
	assert_int_equal(buf_add_str(&b, after), 0);
	return parse_steps(b.data, b.len, 4096);
}

static void endless_depth_is_an_error(void **state)
{
	assert_int_equal(parse_repeated(HEAD, "<x>", 14, ""), -EBADMSG);
	assert_int_equal(parse(HEAD "<x><x><x></x></x></x>" TAIL), 0);
	assert_int_equal(parse_repeated(HEAD, "<x>", 1000000, ""), -EBADMSG);
}

static void fields_have_a_greatest_length(void **state)
{
	assert_int_equal(
		parse_repeated(HEAD URL "<Contents><Size>1</Size><Key>", "%61", 1024, "</Key></Contents>" TAIL), 0);
	assert_int_equal(seen.last.key_len, 1024);
	assert_int_equal(parse_repeated(HEAD URL "<Contents><Size>1</Size><Key>", "%61", 1025,
					"</Key></Contents>" TAIL),
			 -EBADMSG);
	assert_int_equal(parse_repeated(HEAD "<Contents><Size>1</Size><Key>", "k", 1024, "</Key></Contents>" TAIL), 0);
	assert_int_equal(parse_repeated(HEAD "<Contents><Size>1</Size><Key>", "k", 1025, "</Key></Contents>" TAIL),
			 -EBADMSG);
	assert_int_equal(parse_repeated(HEAD "<Contents><Size>1</Size><Key>", "k", 10000000, "</Key></Contents>" TAIL),
			 -EBADMSG);
	assert_int_equal(parse_repeated(HEAD "<Contents><Size>1</Size><Key>k</Key><ETag>", "e", S3_ETAG_MAX + 1,
					"</ETag></Contents>" TAIL),
			 -EBADMSG);
	assert_int_equal(parse_repeated(HEAD "<NextContinuationToken>", "t", 5000, "</NextContinuationToken>" TAIL),
			 -EBADMSG);
}

/* Feeds <part> for ever; returns how many bytes were taken before the parser gave up. */
static size_t fed_until_refused(const char *before, const char *part)
{
	struct s3_list_parser *p = s3_list_parser_new(&ops, &seen);
	size_t fed = strlen(before);
	char block[4096] = "";
	int rc;

	assert_non_null(p);
	while (strlen(block) + strlen(part) < sizeof(block))
		strcat(block, part);
	rc = s3_list_parser_feed(p, before, fed);
	for (; !rc && fed < (256 << 20); fed += strlen(block))
		rc = s3_list_parser_feed(p, block, strlen(block));
	assert_int_equal(rc, -EBADMSG);
	s3_list_parser_free(p);
	return fed;
}

static void one_token_cannot_take_memory_without_bound(void **state)
{
	assert_true(fed_until_refused(HEAD "<", "n") < 100000);
	assert_true(fed_until_refused(HEAD "<x a=\"", "v") < 100000);
	assert_true(fed_until_refused(HEAD "<!--", "c") < 100000);
	assert_true(fed_until_refused(HEAD "<?pi ", "p") < 100000);
	assert_true(fed_until_refused("", "<!-- comment -->\n") < 100000);
	assert_true(fed_until_refused("", " ") < 100000);
}

static void a_document_brings_only_a_few_different_names(void **state)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 64 << 20);
	buf_add_str(&b, HEAD);
	for (int i = 0; i < 40; i++)
		buf_addf(&b, "<Name%d at%d=\"\"/>", i, i % 8);
	buf_add_str(&b, TAIL);
	assert_int_equal(parse(b.data), 0);
	buf_clear(&b);
	buf_add_str(&b, HEAD);
	for (int i = 0; i < 200; i++)
		buf_addf(&b, "<Name%d/>", i);
	buf_add_str(&b, TAIL);
	assert_int_equal(parse(b.data), -EBADMSG);
	buf_clear(&b);
	buf_add_str(&b, HEAD);
	for (int i = 0; i < 200; i++)
		buf_addf(&b, "<Name at%d=\"\"/>", i);
	buf_add_str(&b, TAIL);
	assert_int_equal(parse(b.data), -EBADMSG);
}

static void a_page_without_end_is_an_error(void **state)
{
	assert_int_equal(parse_repeated(HEAD, OBJECT("0123456789012345678901234567890123456789"), 300000, TAIL),
			 -EBADMSG);
	assert_int_equal(seen.nr, 0);
	assert_int_equal(parse_repeated(HEAD, "<Name>0123456789012345678901234567890123456789</Name>", 1500000, TAIL),
			 -EBADMSG);
}

static void a_hundred_thousand_keys_in_one_document_are_read(void **state)
{
	assert_int_equal(parse_repeated(HEAD URL, OBJECT("dir/0123456789"), 100000, TAIL), 0);
	assert_int_equal(seen.nr, 100000);
}

static void the_callers_error_stops_the_list_and_comes_back(void **state)
{
	seen.stop_at = 2;
	assert_int_equal(parse(HEAD URL OBJECT("a") OBJECT("b") OBJECT("c") TAIL), -EINVAL);
	assert_int_equal(seen.nr, 2);
	assert_int_equal(parse(HEAD OBJECT("a") OBJECT("b") OBJECT("c") TAIL), -EINVAL);
	assert_int_equal(seen.nr, 2);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_page_is_read_whole),
		test(every_field_of_an_object_arrives),
		test(an_object_inherits_nothing_from_the_one_before),
		test(any_cut_of_the_bytes_gives_the_same),
		test(list_truncated_body_is_an_error),
		test(an_empty_list_is_not_an_error),
		test(keys_wait_until_a_late_encoding_type_is_known),
		test(without_an_encoding_type_keys_are_as_written),
		test(a_list_without_encoding_that_breaks_off_hands_out_nothing),
		test(keys_may_hold_any_byte),
		test(namespaces_and_their_prefixes_are_ignored),
		test(fields_elsewhere_are_not_taken),
		test(foreign_documents_are_not_empty_directories),
		test(a_truncated_list_must_say_how_it_goes_on),
		test(malformed_fields_are_errors),
		test(document_types_and_entities_are_refused),
		test(endless_depth_is_an_error),
		test(fields_have_a_greatest_length),
		test(one_token_cannot_take_memory_without_bound),
		test(a_document_brings_only_a_few_different_names),
		test(a_page_without_end_is_an_error),
		test(a_hundred_thousand_keys_in_one_document_are_read),
		test(the_callers_error_stops_the_list_and_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
