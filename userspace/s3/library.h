/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_S3_LIBRARY_H
#define PENSTOCK_S3_LIBRARY_H

/* The version of the HTTP library in use: "7.88.1". */
const char *s3_library_version(void);

#endif
