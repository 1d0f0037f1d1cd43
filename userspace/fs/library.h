/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_FS_LIBRARY_H
#define PENSTOCK_FS_LIBRARY_H

/* The version of the FUSE library in use: "3.14.0". */
const char *fs_library_version(void);

#endif
