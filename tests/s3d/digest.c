// SPDX-License-Identifier: Apache-2.0
/*
 * Checksums of S3 objects.
 *
 * Design: the three CRCs are reflected, so one slicing-by-8 loop over a 64-bit register serves the 32-bit ones too.
 * Written apart from the mount's own checksums on purpose: a shared mistake would go unseen.
 */
#include "digest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

static const struct {
	const char *name;
	size_t bytes;
	uint64_t poly; /* reflected; 0 = not a CRC */
} kinds[] = {
	[DIGEST_NONE] = { "none", 0, 0 },
	[DIGEST_CRC32] = { "crc32", 4, 0xedb88320u },
	[DIGEST_CRC32C] = { "crc32c", 4, 0x82f63b78u },
	[DIGEST_CRC64NVME] = { "crc64nvme", 8, 0x9a6c9329ac4bc9b5ull },
	[DIGEST_SHA1] = { "sha1", 20, 0 },
	[DIGEST_SHA256] = { "sha256", 32, 0 },
	[DIGEST_MD5] = { "md5", 16, 0 },
};

static uint64_t crc_table[DIGEST_CRC64NVME + 1][8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_tables_init(void)
{
	for (int k = DIGEST_CRC32; k <= DIGEST_CRC64NVME; k++) {
		for (unsigned i = 0; i < 256; i++) {
			uint64_t c = i;

			for (int bit = 0; bit < 8; bit++)
				c = (c >> 1) ^ (c & 1 ? kinds[k].poly : 0);
			crc_table[k][0][i] = c;
		}
		for (int t = 1; t < 8; t++) {
			for (unsigned i = 0; i < 256; i++) {
				uint64_t c = crc_table[k][t - 1][i];

				crc_table[k][t][i] = crc_table[k][0][c & 0xff] ^ (c >> 8);
			}
		}
	}
}

static uint64_t crc_ones(enum digest_kind kind)
{
	return kinds[kind].bytes == 8 ? UINT64_MAX : UINT32_MAX;
}

static uint64_t crc_update(enum digest_kind kind, uint64_t crc, const unsigned char *p, size_t len)
{
	const uint64_t(*t)[256] = crc_table[kind];

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t x;

		memcpy(&x, p, 8);
		x = crc ^ le64toh(x);
		crc = t[7][x & 0xff] ^ t[6][x >> 8 & 0xff] ^ t[5][x >> 16 & 0xff] ^ t[4][x >> 24 & 0xff] ^
		      t[3][x >> 32 & 0xff] ^ t[2][x >> 40 & 0xff] ^ t[1][x >> 48 & 0xff] ^ t[0][x >> 56];
	}
	for (; len; p++, len--)
		crc = t[0][(crc ^ *p) & 0xff] ^ (crc >> 8);
	return crc;
}

int digest_init(struct digest *d, enum digest_kind kind)
{
	const EVP_MD *md = kind == DIGEST_MD5 ? EVP_md5() : kind == DIGEST_SHA1 ? EVP_sha1() : EVP_sha256();

	*d = (struct digest){ .kind = kind };
	if (kinds[kind].poly) {
		pthread_once(&crc_once, crc_tables_init);
		d->crc = crc_ones(kind);
		return 0;
	}
	d->evp = EVP_MD_CTX_new();
	if (!d->evp)
		return -ENOMEM;
	if (EVP_DigestInit_ex(d->evp, md, NULL) != 1) {
		EVP_MD_CTX_free(d->evp);
		d->evp = NULL;
		return -EIO;
	}
	return 0;
}

void digest_update(struct digest *d, const void *bytes, size_t len)
{
	if (d->evp)
		EVP_DigestUpdate(d->evp, bytes, len);
	else
		d->crc = crc_update(d->kind, d->crc, bytes, len);
}

size_t digest_final(struct digest *d, unsigned char ret[DIGEST_MAX_BYTES])
{
	size_t n = kinds[d->kind].bytes;

	if (d->evp) {
		EVP_DigestFinal_ex(d->evp, ret, NULL);
		EVP_MD_CTX_free(d->evp);
		d->evp = NULL;
		return n;
	}
	d->crc ^= crc_ones(d->kind);
	for (size_t i = 0; i < n; i++)
		ret[i] = (unsigned char)(d->crc >> 8 * (n - 1 - i));
	return n;
}

enum digest_kind digest_kind_parse(const char *name)
{
	for (int k = DIGEST_CRC32; name && k <= DIGEST_SHA256; k++)
		if (!strcasecmp(name, kinds[k].name))
			return (enum digest_kind)k;
	return DIGEST_NONE;
}

const char *digest_kind_name(enum digest_kind kind)
{
	return kinds[kind].name;
}

void digest_hex(const unsigned char *bytes, size_t len, char *ret)
{
	for (size_t i = 0; i < len; i++)
		sprintf(ret + 2 * i, "%02x", bytes[i]);
	ret[2 * len] = '\0';
}

void digest_base64(const unsigned char *bytes, size_t len, char *ret)
{
	EVP_EncodeBlock((unsigned char *)ret, bytes, (int)len);
}
