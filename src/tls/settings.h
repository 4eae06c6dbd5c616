/*
 * What a listener's `tls` says, as plain data with the bytes of the files that it names. A part of the configuration:
 * the files are read once for a generation, so all of its workers have the same certificates.
 *
 * Threads: immutable once filled in.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_file {
	char *path;  /* as written in the script; NULL: there is none */
	char *place; /* where it was read from */
	uint8_t *bytes;
	size_t count;
};

/* What it has; not itself. */
void tls_file_deinit(struct tls_file *file);

/* A certificate with its chain, and the key that belongs to it; both PEM. */
struct tls_pair {
	struct tls_file certificate, key;
};

enum { TLS_PAIRS_MAX = 4 }; /* one for each kind of key */

/* Who the server is to clients that ask for a name. */
struct tls_identity {
	char *name; /* "example.org" or "*.example.org"; NULL: to all that ask for none of the others */
	struct tls_pair pairs[TLS_PAIRS_MAX];
	unsigned pair_count;
	struct tls_file ocsp; /* a DER response for the first pair, to be stapled */
};

enum tls_client_rule {
	TLS_CLIENT_ANY,     /* no certificate is asked for */
	TLS_CLIENT_REQUEST, /* one is asked for; whose it is, is for the handler to decide */
	TLS_CLIENT_REQUIRE, /* one that the authority has signed */
};

struct tls_settings {
	struct tls_identity *identities; /* the first is the default */
	unsigned identity_count;
	enum tls_client_rule client;
	struct tls_file authority; /* of clients: PEM */
	uint8_t *alpn;             /* as on the wire: lengths and names, the best first; NULL: none */
	size_t alpn_bytes;
	int min_version; /* 0x0303: 1.2, 0x0304: 1.3 */
	char *ciphers;   /* names of OpenSSL's, of 1.2 and 1.3, ':' between; NULL: its own choice */
};

void tls_settings_free(struct tls_settings *settings);

/*
 * Can a server be made of it? NULL, or what is wrong in text: "key.pem does not belong to cert.pem". It reads no
 * file.
 */
const char *tls_settings_check(const struct tls_settings *settings, char *text, size_t size);

/*
 * Tells of what is allowed and hardly meant: a key that others may read, a certificate that ends soon. now_s: by the
 * wall clock, since 1970.
 */
void tls_settings_warn(const struct tls_settings *settings, int64_t now_s,
		       void (*tell)(void *data, const char *text), void *data);

/* Tells of each certificate, a line each: "cert.pem: example.org, *.example.org; EC; 77 days left". */
void tls_settings_describe(const struct tls_settings *settings, int64_t now_s,
			   void (*tell)(void *data, const char *text), void *data);
