/* SPDX-License-Identifier: Apache-2.0 */
/* Sending of replies. */
#ifndef S3D_WIRE_H
#define S3D_WIRE_H

#include "request.h"

const char *wire_reason(int status);

/* wire_flip.c: the byte after <after_bytes> more of TLS records leaves this connection flipped. */
void wire_flip_arm(struct conn *c, uint64_t after_bytes);
/* Before the connection's memory goes: TLS may still write its farewell. */
void wire_flip_forget(struct conn *c);

#endif
