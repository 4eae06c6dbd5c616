/* Certificates for tests in C. */
#pragma once

#include "tls/settings.h"

/* A server's settings with a certificate that signs itself, of a key of its own. */
struct tls_settings *pem_settings(void);

/* Who signs certificates. */
struct pem_authority;

struct pem_authority *pem_authority_new(const char *name);
void pem_authority_free(struct pem_authority *authority);

/* Its own certificate. */
struct tls_file pem_authority_file(const struct pem_authority *authority);

/* A certificate for these names, as OpenSSL writes them ("DNS:db.example,IP:10.0.0.7"), over after so many seconds. */
struct tls_pair pem_sign(const struct pem_authority *authority, const char *names, long left_s);
