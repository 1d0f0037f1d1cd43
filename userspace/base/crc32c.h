/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), as iSCSI and ext4 have it. For small files: a table, no special instructions. */
#ifndef PENSTOCK_BASE_CRC32C_H
#define PENSTOCK_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues <crc>, which is 0 at the beginning. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

#endif
