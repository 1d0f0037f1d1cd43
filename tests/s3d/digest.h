/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums of S3 objects (MD5, SHA, CRC-32, CRC-32C, CRC-64/NVME), their text forms, and the mixing function. */
#ifndef S3D_DIGEST_H
#define S3D_DIGEST_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum digest_kind {
	DIGEST_NONE = 0,
	DIGEST_CRC32,
	DIGEST_CRC32C,
	DIGEST_CRC64NVME,
	DIGEST_SHA1,
	DIGEST_SHA256,
	DIGEST_MD5,
};

#define DIGEST_MAX_BYTES 32
#define DIGEST_BASE64_MAX 45 /* of DIGEST_MAX_BYTES, NUL included */
#define DIGEST_HEX_MAX 65

struct digest {
	enum digest_kind kind;
	uint64_t crc;
	EVP_MD_CTX *evp;
};

int digest_init(struct digest *d, enum digest_kind kind);
void digest_update(struct digest *d, const void *bytes, size_t len);
/* Writes the big-endian value, frees what init took, returns its length. */
size_t digest_final(struct digest *d, unsigned char ret[DIGEST_MAX_BYTES]);

/* "crc32c", the tail of the header name x-amz-checksum-crc32c; any case. DIGEST_NONE if unknown. */
enum digest_kind digest_kind_parse(const char *name);
const char *digest_kind_name(enum digest_kind kind);

void digest_hex(const unsigned char *bytes, size_t len, char *ret);
void digest_base64(const unsigned char *bytes, size_t len, char *ret);

/* SplitMix64's finisher: a bijection that scatters. */
static inline uint64_t mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}
#define MIX64_STEP 0x9e3779b97f4a7c15ull

#endif
