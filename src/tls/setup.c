#include "tls/setup.h"

#include "tls/settings.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

/* ---- from PEM ---- */

bool setup_refuse(const struct setup_why *why, const struct tls_file *file, const char *what)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = error ? ERR_reason_error_string(error) : NULL;
	snprintf(why->text, why->size, "%s %s%s%s", file->path, what, reason ? ": " : "",
		 reason ? reason : "");
	ERR_clear_error();
	return false;
}

/* No key has a password here: nobody could be asked for it. */
static int no_password(char *to, int size, int writes, void *data)
{
	(void)to;
	(void)size;
	(void)writes;
	*(bool *)data = true;
	return -1;
}

static BIO *bio_of(const struct tls_file *file)
{
	return BIO_new_mem_buf(file->bytes, (int)file->count);
}

/* The first certificate of a file is our own, the others lead to an authority. */
static bool use_chain(SSL_CTX *ssl, const struct tls_file *file, const struct setup_why *why)
{
	BIO *bio = bio_of(file);
	X509 *first = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL, *next;
	bool ok = first && SSL_CTX_use_certificate(ssl, first) == 1;
	X509_free(first);
	if (!ok) {
		BIO_free(bio);
		return setup_refuse(why, file, "has no certificate that can be used");
	}
	while (ok && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		ok = SSL_CTX_add0_chain_cert(ssl, next) == 1;
		if (!ok)
			X509_free(next);
	}
	BIO_free(bio);
	bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	if (!ok || !is_end)
		return setup_refuse(why, file, "has a certificate in its chain that cannot be used");
	ERR_clear_error();
	return true;
}

static bool use_key(SSL_CTX *ssl, const struct tls_pair *pair, const struct setup_why *why)
{
	bool is_locked = false;
	BIO *bio = bio_of(&pair->key);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, &is_locked) : NULL;
	BIO_free(bio);
	if (!key && is_locked) {
		ERR_clear_error();
		return setup_refuse(why, &pair->key, "is locked by a password: leave the key without one");
	}
	if (!key)
		return setup_refuse(why, &pair->key, "has no private key that can be used");
	bool ok = SSL_CTX_use_PrivateKey(ssl, key) == 1;
	EVP_PKEY_free(key);
	if (!ok || SSL_CTX_check_private_key(ssl) != 1) {
		ERR_clear_error();
		snprintf(why->text, why->size, "%s is not the key of %s", pair->key.path,
			 pair->certificate.path);
		return false;
	}
	return true;
}

bool setup_pair(SSL_CTX *ssl, const struct tls_pair *pair, const struct setup_why *why)
{
	return use_chain(ssl, &pair->certificate, why) && use_key(ssl, pair, why);
}

bool setup_authority(SSL_CTX *ssl, const struct tls_file *file, const struct setup_why *why)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	BIO *bio = bio_of(file);
	unsigned count = 0;
	bool ok = bio;
	for (X509 *next; ok && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)); count++) {
		ok = X509_STORE_add_cert(store, next) == 1 && SSL_CTX_add_client_CA(ssl, next) == 1;
		X509_free(next);
	}
	BIO_free(bio);
	if (!count)
		return setup_refuse(why, file, "has no certificate of an authority");
	if (!ok || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return setup_refuse(why, file, "has a certificate of an authority that cannot be used");
	ERR_clear_error();
	return true;
}

/* ---- ciphers, and who is taken ---- */

/* Does OpenSSL know one by this name? In a list it passes over those that it does not. */
static bool is_cipher(SSL_CTX *ssl, const char *name)
{
	return !strncmp(name, "TLS_", 4) ? SSL_CTX_set_ciphersuites(ssl, name) == 1
					 : SSL_CTX_set_cipher_list(ssl, name) == 1;
}

bool setup_ciphers(SSL_CTX *ssl, const char *ciphers, const struct setup_why *why)
{
	char old[1024] = "", new[1024] = "", copy[1024], *rest;
	if (!ciphers)
		return true;
	snprintf(copy, sizeof copy, "%s", ciphers);
	for (char *name = strtok_r(copy, ":", &rest); name; name = strtok_r(NULL, ":", &rest)) {
		char *to = strncmp(name, "TLS_", 4) != 0 ? old : new;
		size_t at = strlen(to);
		if (!is_cipher(ssl, name)) {
			ERR_clear_error();
			snprintf(why->text, why->size, "ciphers: OpenSSL knows no %s", name);
			return false;
		}
		snprintf(to + at, sizeof old - at, "%s%s", at ? ":" : "", name);
	}
	return (!*old || SSL_CTX_set_cipher_list(ssl, old) == 1) &&
	       (!*new || SSL_CTX_set_ciphersuites(ssl, new) == 1);
}

/* No chain is built, which would cost us what a stranger likes. */
static int take_any(X509_STORE_CTX *store, void *data)
{
	(void)data;
	X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 1;
}

void setup_take_any(SSL_CTX *ssl)
{
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(ssl, take_any, NULL);
}

/* ---- records and versions ---- */

void setup_modes(SSL_CTX *ssl, int min_version)
{
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_min_proto_version(ssl, min_version);
	/* Of 1.2 only what keeps past talk secret, and is no CBC; exchanges of keys that cost a server little. */
	SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20");
	SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384");
	SSL_CTX_set_read_ahead(ssl, 1); /* one read for a record, not one for its head and one for the rest */
}
