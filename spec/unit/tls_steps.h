/*
 * What the tests of TLS of connections out have in common: a server that an authority has signed, a client that trusts
 * it, and the two ends of a connection between them.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/pem.h"
#include "support/tls_ends.h"
#include "tls/outgoing.h"

#include <openssl/ssl.h>

enum { DAY_S = 86400 };

extern struct pem_authority *authority;
extern struct tls_settings *settings;       /* the server's; certificates are for db.example and others */
extern struct tls_outgoing outgoing;        /* the client's: db.example, from 1.2 on, by the authority */
extern struct tls_context *server, *client; /* of `settings` and `outgoing`, once they are made */
extern struct ends ends;

/* Of each test. */
int outgoing_begin(void **state);
int outgoing_end(void **state);

#define OUTGOING(TEST) cmocka_unit_test_setup_teardown(TEST, outgoing_begin, outgoing_end)

/* Contexts, in place of those that there are. */
void make_server(void);
void make_client(void);
void make_both(void);

/* The client's server_name from now on. */
void ask_for(const char *name);

/* The server shows that certificate from now on; or the client does. */
void show(struct tls_pair *pair, struct tls_pair shown);

/* The server has this version and none above it. */
void cap_server(int version);

SSL *ssl_of(struct end *end);

/* They shake hands, as far as they get. */
void meet(void);

/* They have met, and bytes pass both ways. */
void expect_met(void);

void expect_failure(struct end *end, const char *why);

/* They meet, it comes to nothing, and the client is told why; or they do well. Then it is over. */
void expect_refusal(const char *why);
void expect_meeting(void);
