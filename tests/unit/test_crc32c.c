// SPDX-License-Identifier: Apache-2.0
/* CRC-32C: the vectors of RFC 3720 and the usual check value. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "base/crc32c.h"

static void known_values_are_met(void **state)
{
	uint8_t bytes[32];

	assert_int_equal(crc32c(0, "", 0), 0);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = 31 - i;
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x113fdb5c);
}

static void pieces_give_the_same_as_the_whole(void **state)
{
	static const char text[] = "The quick brown fox jumps over the lazy dog";
	uint32_t whole = crc32c(0, text, strlen(text));

	assert_int_equal(whole, 0x22620404);
	for (size_t cut = 0; cut <= strlen(text); cut++)
		assert_int_equal(crc32c(crc32c(0, text, cut), text + cut, strlen(text) - cut), whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values_are_met),
		cmocka_unit_test(pieces_give_the_same_as_the_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
