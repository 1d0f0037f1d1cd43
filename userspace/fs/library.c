// SPDX-License-Identifier: Apache-2.0
/* The version of the FUSE library. */
#include "fs/library.h"

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

const char *fs_library_version(void)
{
	return fuse_pkgversion();
}
