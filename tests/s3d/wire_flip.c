// SPDX-License-Identifier: Apache-2.0
/*
 * A byte flipped beneath TLS: a BIO between OpenSSL and the socket, pushed onto the connection when first needed.
 */
#include <event2/bufferevent_ssl.h>
#include <openssl/bio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire.h"

static BIO_METHOD *flip_method;
static pthread_once_t flip_once = PTHREAD_ONCE_INIT;

static int flip_write(BIO *bio, const char *bytes, int len)
{
	struct conn *c = BIO_get_data(bio);
	_cleanup_free_ char *copy = NULL;
	int n;

	if (c && c->flip_armed && c->flip_after_bytes < (uint64_t)len) {
		copy = malloc((size_t)len);
		if (!copy)
			return -1;
		memcpy(copy, bytes, (size_t)len);
		copy[c->flip_after_bytes] = (char)~copy[c->flip_after_bytes];
		bytes = copy;
	}
	n = BIO_write(BIO_next(bio), bytes, len);
	BIO_clear_retry_flags(bio);
	BIO_copy_next_retry(bio);
	if (c && n > 0 && c->flip_armed) {
		c->flip_armed = c->flip_after_bytes >= (uint64_t)n;
		c->flip_after_bytes -= c->flip_armed ? (uint64_t)n : 0;
	}
	return n;
}

static long flip_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	return BIO_ctrl(BIO_next(bio), cmd, num, ptr);
}

static int flip_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static void flip_init(void)
{
	flip_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_FILTER, "flip");
	if (!flip_method)
		return;
	BIO_meth_set_write(flip_method, flip_write);
	BIO_meth_set_ctrl(flip_method, flip_ctrl);
	BIO_meth_set_create(flip_method, flip_create);
}

void wire_flip_forget(struct conn *c)
{
	if (c->flip)
		BIO_set_data(c->flip, NULL);
}

void wire_flip_arm(struct conn *c, uint64_t after_bytes)
{
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
	BIO *below = SSL_get_wbio(ssl);

	pthread_once(&flip_once, flip_init);
	if (!c->flip) {
		c->flip = flip_method ? BIO_new(flip_method) : NULL;
		if (!c->flip)
			return;
		BIO_set_data(c->flip, c);
		BIO_up_ref(below); /* the reading side holds it too */
		BIO_push(c->flip, below);
		SSL_set0_wbio(ssl, c->flip);
	}
	c->flip_after_bytes = after_bytes;
	c->flip_armed = true;
}
