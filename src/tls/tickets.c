#include "tls/tickets.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { ROTATE_S = 12 * 3600, NAME_BYTES = 16, SECRET_BYTES = 32 };

struct ticket_key {
	unsigned char name[NAME_BYTES], cipher[SECRET_BYTES], mac[SECRET_BYTES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* As they are handed to another process, whose clock is the same. */
static struct {
	struct ticket_key keys[2]; /* the newest first */
	int64_t made_s;            /* when that was made; 0: there is none yet */
} tickets;

_Static_assert(2 * sizeof tickets + 1 == TICKETS_TEXT_BYTES, "as they are saved");

static int64_t monotonic_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec + 1; /* never 0 */
}

/*
 * With the lock. False: there is no randomness to be had, and so no key. It is the system's and not OpenSSL's: what a
 * connection draws does not depend on whether a new key was due.
 */
static bool rotate(void)
{
	int64_t now_s = monotonic_s();
	struct ticket_key next;
	if (tickets.made_s && now_s - tickets.made_s < ROTATE_S)
		return true;
	if (getentropy(&next, sizeof next) == 0) {
		tickets.keys[1] = tickets.made_s ? tickets.keys[0] : next;
		tickets.keys[0] = next;
		tickets.made_s = now_s;
	}
	OPENSSL_cleanse(&next, sizeof next);
	return tickets.made_s != 0;
}

/* The newest, or the one of that name. False: there is none. */
static bool find_key(const unsigned char *name, struct ticket_key *found, bool *is_newest)
{
	pthread_mutex_lock(&lock);
	bool has = rotate();
	int i = 0;
	if (has && name)
		while (i < 2 && memcmp(tickets.keys[i].name, name, NAME_BYTES) != 0)
			i++;
	has = has && i < 2;
	if (has)
		*found = tickets.keys[i];
	*is_newest = i == 0;
	pthread_mutex_unlock(&lock);
	return has;
}

static bool ticket_use_key(const struct ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
			   EVP_MAC_CTX *mac, bool encrypts)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->mac, SECRET_BYTES),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"sha256", 0),
		OSSL_PARAM_construct_end(),
	};
	if (!EVP_MAC_CTX_set_params(mac, params))
		return false;
	return encrypts ? EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv)
			: EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv);
}

/*
 * As OpenSSL asks: 1: done; 2: done, and a new ticket is due; 0: no session; -1: an error. Clients use a ticket of 1.3
 * once (RFC 8446 C.4): without a new one, they could resume every other time only.
 */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
		     EVP_MAC_CTX *mac, int encrypts)
{
	struct ticket_key key;
	bool is_newest;
	if (!find_key(encrypts ? NULL : name, &key, &is_newest))
		return 0;
	bool ok = !encrypts || RAND_bytes(iv, EVP_CIPHER_iv_length(EVP_aes_256_cbc())) == 1;
	if (encrypts)
		memcpy(name, key.name, NAME_BYTES);
	ok = ok && ticket_use_key(&key, iv, cipher, mac, encrypts);
	OPENSSL_cleanse(&key, sizeof key);
	if (!ok)
		return -1;
	return encrypts || (is_newest && SSL_version(ssl) < TLS1_3_VERSION) ? 1 : 2;
}

void tickets_use(SSL_CTX *context)
{
	SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
	SSL_CTX_set_timeout(context, ROTATE_S);
}

bool tickets_save(char text[TICKETS_TEXT_BYTES])
{
	pthread_mutex_lock(&lock);
	const unsigned char *bytes = (const unsigned char *)&tickets;
	bool has = tickets.made_s != 0;
	for (size_t i = 0; has && i < sizeof tickets; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	pthread_mutex_unlock(&lock);
	return has;
}

static int ticket_digit_of(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool tickets_load(const char *text)
{
	unsigned char bytes[sizeof tickets];
	bool ok = strlen(text) == 2 * sizeof tickets;
	for (size_t i = 0; ok && i < sizeof tickets; i++) {
		int high = ticket_digit_of(text[2 * i]), low = ticket_digit_of(text[2 * i + 1]);
		ok = high >= 0 && low >= 0;
		bytes[i] = (unsigned char)(ok ? high << 4 | low : 0);
	}
	if (ok) {
		pthread_mutex_lock(&lock);
		memcpy(&tickets, bytes, sizeof tickets);
		pthread_mutex_unlock(&lock);
	}
	OPENSSL_cleanse(bytes, sizeof bytes);
	return ok;
}
