/* OpenSSL 3 has providers for this. A method of RAND goes before them all, in every context, and is one call. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "workbench/entropy.h"

#include "workbench/links.h"

#include <openssl/rand.h>
#include <string.h>

static _Thread_local uint64_t *generator;

uint64_t *entropy_draw_from(uint64_t *state)
{
	uint64_t *before = generator;
	generator = state;
	return before;
}

static int entropy_bytes(unsigned char *to, int n)
{
	if (!generator)
		return RAND_OpenSSL()->bytes(to, n);
	for (int at = 0; at < n; at += (int)sizeof(uint64_t)) {
		uint64_t drawn = links_random(generator);
		int rest = n - at;
		memcpy(to + at, &drawn, rest < (int)sizeof drawn ? (size_t)rest : sizeof drawn);
	}
	return 1;
}

static int entropy_status(void)
{
	return 1;
}

void entropy_begin(void)
{
	static const RAND_METHOD METHOD = { .bytes = entropy_bytes,
					    .pseudorand = entropy_bytes,
					    .status = entropy_status };
	RAND_set_rand_method(&METHOD);
}
