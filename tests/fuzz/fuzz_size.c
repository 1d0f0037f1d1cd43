// SPDX-License-Identifier: Apache-2.0
/* Any text as a size, a number or a duration: a value or an error, and the two spellings of a unit agree. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = malloc(size + 4);
	uint64_t bytes, number, ns, again;
	int rc;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	rc = size_parse(text, &bytes);
	if (rc != 0 && rc != -EINVAL && rc != -ERANGE)
		abort();
	/* A plain number is the same size, and as many seconds. */
	if (number_parse(text, 0, UINT64_MAX, &number) == 0) {
		if (rc || bytes != number)
			abort();
		if (duration_parse(text, &ns) == 0 && (number > UINT64_MAX / 1000000000 || ns != number * 1000000000))
			abort();
	} else {
		(void)duration_parse(text, &ns);
	}
	/* "8M" and "8MiB" agree. */
	if (rc == 0 && size && strchr("KMGTkmgt", text[size - 1])) {
		memcpy(text + size, "iB", 3);
		if (size_parse(text, &again) || again != bytes)
			abort();
	}
	return 0;
}
