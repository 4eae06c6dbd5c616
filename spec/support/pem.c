#include "support/pem.h"

#include <assert.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
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

static X509 *sign_itself(EVP_PKEY *key)
{
	enum { DAY_S = 86400 };
	X509 *certificate = X509_new();
	X509_NAME *name = X509_get_subject_name(certificate);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -DAY_S);
	X509_gmtime_adj(X509_getm_notAfter(certificate), DAY_S);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"a test", -1, -1, 0);
	X509_set_issuer_name(certificate, name);
	X509_set_pubkey(certificate, key);
	int signed_bytes = X509_sign(certificate, key, EVP_sha256());
	assert(signed_bytes > 0);
	return certificate;
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
	X509 *certificate = sign_itself(key);
	BIO *pem = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(pem, certificate);
	PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL);
	settings->identities->pair_count = 1;
	settings->identities->pairs[0].certificate = take(pem, "cert.pem");
	settings->identities->pairs[0].key = take(secret, "key.pem");
	X509_free(certificate);
	EVP_PKEY_free(key);
	return settings;
}
