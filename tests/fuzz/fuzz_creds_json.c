// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a credential reply: whole credentials or none, and a message with every failure. */
#include <stdint.h>
#include <stdlib.h>

#include "s3/creds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct s3_creds c;
	struct err e = { 0 };
	int rc = s3_creds_json_parse((const char *)data, size, &c, &e);

	if (rc < 0 ? !e.msg[0] || c.access_key_id[0] || c.secret_key.len || c.session_token.len
		   : !c.access_key_id[0] || !c.secret_key.len)
		abort();
	s3_creds_wipe(&c);
	return 0;
}
