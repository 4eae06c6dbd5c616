#include "tls/settings.h"

#include "tls/context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { DAY_S = 86400, SOON_DAYS = 14, NAMES_BYTES = 256, LINE_BYTES = 512 };

void tls_file_deinit(struct tls_file *file)
{
	free(file->path);
	free(file->place);
	if (file->bytes)
		OPENSSL_cleanse(file->bytes, file->count); /* it may have been a key */
	free(file->bytes);
}

static void free_identity(struct tls_identity *identity)
{
	for (unsigned i = 0; i < identity->pair_count; i++) {
		tls_file_deinit(&identity->pairs[i].certificate);
		tls_file_deinit(&identity->pairs[i].key);
	}
	tls_file_deinit(&identity->ocsp);
	free(identity->name);
}

void tls_settings_free(struct tls_settings *settings)
{
	if (!settings)
		return;
	for (unsigned i = 0; i < settings->identity_count; i++)
		free_identity(&settings->identities[i]);
	tls_file_deinit(&settings->authority);
	free(settings->identities);
	free(settings->alpn);
	free(settings->ciphers);
	free(settings);
}

const char *tls_settings_check(const struct tls_settings *settings, char *text, size_t size)
{
	struct tls_context *context = tls_context_new(settings, text, size);
	tls_context_free(context);
	return context ? NULL : text;
}

/* ---- what certificates say of themselves ---- */

static X509 *certificate_of(const struct tls_file *file)
{
	BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->count);
	X509 *certificate = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
	BIO_free(bio);
	ERR_clear_error();
	return certificate;
}

/* Negative: it has ended. */
static int days_left(const X509 *certificate, int64_t now_s)
{
	struct tm end;
	if (!ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end))
		return 0;
	int64_t left_s = (int64_t)timegm(&end) - now_s;
	return (int)(left_s >= 0 ? left_s / DAY_S : -1 - (-left_s - 1) / DAY_S);
}

static void names_of(const X509 *certificate, char *text, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	size_t at = 0;
	*text = '\0';
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && at < size; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type == GEN_DNS)
			at += (size_t)snprintf(text + at, size - at, "%s%.*s", at ? ", " : "",
					       ASN1_STRING_length(name->d.dNSName),
					       (const char *)ASN1_STRING_get0_data(name->d.dNSName));
	}
	GENERAL_NAMES_free(names);
	if (!*text)
		X509_NAME_oneline(X509_get_subject_name(certificate), text, (int)size);
}

static void describe(const struct tls_pair *pair, int64_t now_s, char *text, size_t size)
{
	char names[NAMES_BYTES];
	X509 *certificate = certificate_of(&pair->certificate);
	if (!certificate) {
		snprintf(text, size, "%s", pair->certificate.path);
		return;
	}
	int days = days_left(certificate, now_s);
	names_of(certificate, names, sizeof names);
	const EVP_PKEY *key = X509_get0_pubkey(certificate);
	const char *kind = key && EVP_PKEY_base_id(key) == EVP_PKEY_RSA  ? "RSA"
			   : key && EVP_PKEY_base_id(key) == EVP_PKEY_EC ? "EC"
									 : "other key";
	snprintf(text, size, "%s: %s; %s; %d day%s %s", pair->certificate.path, names, kind, abs(days),
		 abs(days) == 1 ? "" : "s", days < 0 ? "over" : "left");
	X509_free(certificate);
}

void tls_settings_describe(const struct tls_settings *settings, int64_t now_s,
			   void (*tell)(void *data, const char *text), void *data)
{
	char line[LINE_BYTES];
	for (unsigned i = 0; i < settings->identity_count; i++) {
		for (unsigned k = 0; k < settings->identities[i].pair_count; k++) {
			describe(&settings->identities[i].pairs[k], now_s, line, sizeof line);
			tell(data, line);
		}
	}
}

static void warn_of_end(const struct tls_pair *pair, int64_t now_s,
			void (*tell)(void *data, const char *text), void *data)
{
	char text[LINE_BYTES];
	X509 *certificate = certificate_of(&pair->certificate);
	int days = certificate ? days_left(certificate, now_s) : SOON_DAYS;
	X509_free(certificate);
	if (days >= SOON_DAYS)
		return;
	if (days < 0)
		snprintf(text, sizeof text, "%s ended %d day%s ago: clients refuse it",
			 pair->certificate.path, -days, days == -1 ? "" : "s");
	else
		snprintf(text, sizeof text, "%s ends in %d day%s", pair->certificate.path, days,
			 days == 1 ? "" : "s");
	tell(data, text);
}

static void warn_of_mode(const struct tls_file *key, void (*tell)(void *data, const char *text), void *data)
{
	char text[LINE_BYTES];
	struct stat found;
	if (!key->place || stat(key->place, &found) || !(found.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)))
		return;
	snprintf(text, sizeof text, "%s can be %s (mode %04o): chmod 600 %s", key->path,
		 found.st_mode & S_IROTH ? "read by everybody on this machine" : "written by others",
		 (unsigned)found.st_mode & 07777, key->place);
	tell(data, text);
}

void tls_settings_warn(const struct tls_settings *settings, int64_t now_s,
		       void (*tell)(void *data, const char *text), void *data)
{
	for (unsigned i = 0; i < settings->identity_count; i++) {
		for (unsigned k = 0; k < settings->identities[i].pair_count; k++) {
			warn_of_end(&settings->identities[i].pairs[k], now_s, tell, data);
			warn_of_mode(&settings->identities[i].pairs[k].key, tell, data);
		}
	}
}
