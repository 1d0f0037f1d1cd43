// SPDX-License-Identifier: Apache-2.0
/* The version of the HTTP library. */
#include "s3/library.h"

#include <curl/curl.h>

const char *s3_library_version(void)
{
	return curl_version_info(CURLVERSION_NOW)->version;
}
