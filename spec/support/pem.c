#include "support/pem.h"

#include <assert.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

static struct tls_file take(BIO *bio, const char *path)
{
	char *bytes;
	size_t n = (size_t)BIO_get_mem_data(bio, &bytes);
	struct tls_file file = { .path = strdup(path), .bytes = malloc(n), .count = n };
	assert(file.bytes);
	memcpy(file.bytes, bytes, n);
	BIO_free(bio);
	return file;
}

enum { DAY_S = 86400 };

struct pem_authority {
	EVP_PKEY *key;
	X509 *certificate;
};

/* Not yet signed. */
static X509 *begin_certificate(EVP_PKEY *key, const char *name, long left_s)
{
	static long serial;
	X509 *certificate = X509_new();
	X509_set_version(certificate, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -DAY_S);
	X509_gmtime_adj(X509_getm_notAfter(certificate), left_s);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_pubkey(certificate, key);
	return certificate;
}

static void extend(X509 *certificate, int kind, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, NULL, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
	assert(extension);
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
}

static void sign(X509 *certificate, const X509_NAME *issuer, EVP_PKEY *key)
{
	X509_set_issuer_name(certificate, issuer);
	int signed_bytes = X509_sign(certificate, key, EVP_sha256());
	assert(signed_bytes > 0);
	(void)signed_bytes;
}

static struct tls_file write_certificate(X509 *certificate, const char *path)
{
	BIO *pem = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(pem, certificate);
	return take(pem, path);
}

static struct tls_pair write_pair(X509 *certificate, EVP_PKEY *key)
{
	BIO *secret = BIO_new(BIO_s_mem());
	PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL);
	return (struct tls_pair){ write_certificate(certificate, "cert.pem"), take(secret, "key.pem") };
}

struct tls_settings *pem_settings(void)
{
	struct tls_settings *settings = calloc(1, sizeof *settings);
	assert(settings);
	settings->identities = calloc(1, sizeof *settings->identities);
	assert(settings->identities);
	settings->identity_count = 1;
	settings->min_version = 0x0303;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = begin_certificate(key, "a test", DAY_S);
	sign(certificate, X509_get_subject_name(certificate), key);
	settings->identities->pair_count = 1;
	settings->identities->pairs[0] = write_pair(certificate, key);
	X509_free(certificate);
	EVP_PKEY_free(key);
	return settings;
}

struct pem_authority *pem_authority_new(const char *name)
{
	struct pem_authority *authority = calloc(1, sizeof *authority);
	assert(authority);
	authority->key = EVP_EC_gen("P-256");
	authority->certificate = begin_certificate(authority->key, name, DAY_S);
	extend(authority->certificate, NID_basic_constraints, "critical,CA:TRUE");
	sign(authority->certificate, X509_get_subject_name(authority->certificate), authority->key);
	return authority;
}

void pem_authority_free(struct pem_authority *authority)
{
	EVP_PKEY_free(authority->key);
	X509_free(authority->certificate);
	free(authority);
}

struct tls_file pem_authority_file(const struct pem_authority *authority)
{
	return write_certificate(authority->certificate, "ca.pem");
}

struct tls_pair pem_sign(const struct pem_authority *authority, const char *names, long left_s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = begin_certificate(key, "db.example", left_s);
	extend(certificate, NID_basic_constraints, "critical,CA:FALSE");
	extend(certificate, NID_subject_alt_name, names);
	sign(certificate, X509_get_subject_name(authority->certificate), authority->key);
	struct tls_pair pair = write_pair(certificate, key);
	X509_free(certificate);
	EVP_PKEY_free(key);
	return pair;
}
