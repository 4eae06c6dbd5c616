#include "tls/authorities.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

enum { READ_AGAIN_S = 3600 };

static pthread_mutex_t authorities_lock = PTHREAD_MUTEX_INITIALIZER;
static X509_STORE *authorities;
static int64_t authorities_read_s; /* when */

static int64_t authorities_now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* With the lock. Those that contexts have stay with them. */
static void read_authorities(int64_t now_s)
{
	X509_STORE *store = X509_STORE_new();
	if (store)
		X509_STORE_set_default_paths(store);
	ERR_clear_error(); /* a file that is not there, or that has one twice */
	if (!store)
		return;
	X509_STORE_free(authorities);
	authorities = store;
	authorities_read_s = now_s;
}

X509_STORE *authorities_of_system(void)
{
	int64_t now_s = authorities_now_s();
	pthread_mutex_lock(&authorities_lock);
	if (!authorities || now_s - authorities_read_s >= READ_AGAIN_S)
		read_authorities(now_s);
	X509_STORE *store = authorities && X509_STORE_up_ref(authorities) == 1 ? authorities : NULL;
	pthread_mutex_unlock(&authorities_lock);
	return store;
}
