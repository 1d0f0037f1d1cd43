/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An error for people: a -errno and one sentence saying what was wrong and what to do.
 * Only user-facing paths carry it; hot paths return -errno alone.
 */
#ifndef PENSTOCK_BASE_ERR_H
#define PENSTOCK_BASE_ERR_H

#include <stdarg.h>

#define ERR_MSG_BYTES 1024

struct err {
	int code; /* 0 or -errno */
	char msg[ERR_MSG_BYTES];
};

/* Sets code and message; <code> is -errno and is returned, so "return err_set(...)" works. <e> may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "text: " before the message on its way up; returns the code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
