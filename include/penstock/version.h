/* SPDX-License-Identifier: Apache-2.0 */
/* The one source of the version; the Makefile and the man pages read it from here. */
#ifndef PENSTOCK_VERSION_H
#define PENSTOCK_VERSION_H

#define PENSTOCK_VERSION "0.1.0"

#endif
