// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a profile file: no crash, no leak, bounded strings, and a message with every failure. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "s3/creds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, const char *profile, bool is_config)
{
	struct s3_profile_values v;
	struct err e = { 0 };
	int rc = s3_profile_parse((const char *)data, size, profile, is_config, &v, &e);

	if (rc < 0 && (!e.msg[0] || v.found || v.secret_key.len))
		abort();
	if (rc == 0 && !v.found && (v.access_key_id[0] || v.secret_key.len || v.region[0]))
		abort();
	if (strnlen(v.credential_process, sizeof(v.credential_process)) == sizeof(v.credential_process))
		abort();
	s3_profile_values_wipe(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(data, size, "default", false);
	check(data, size, "default", true);
	check(data, size, "a", true);
	return 0;
}
