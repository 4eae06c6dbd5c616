#include "dict/siphash.h"

#include <string.h>

struct state {
	uint64_t a, b, c, d;
};

static inline uint64_t sip_rotate(uint64_t value, unsigned bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void sip_mix(struct state *s)
{
	s->a += s->b;
	s->b = sip_rotate(s->b, 13) ^ s->a;
	s->a = sip_rotate(s->a, 32);
	s->c += s->d;
	s->d = sip_rotate(s->d, 16) ^ s->c;
	s->a += s->d;
	s->d = sip_rotate(s->d, 21) ^ s->a;
	s->c += s->b;
	s->b = sip_rotate(s->b, 17) ^ s->c;
	s->c = sip_rotate(s->c, 32);
}

static inline void sip_take(struct state *s, uint64_t word)
{
	s->d ^= word;
	sip_mix(s);
	s->a ^= word;
}

/* Words are little-endian, as they lie in the memory of the machines that this runs on. */
uint64_t siphash(const struct siphash_key *key, const void *data, size_t len)
{
	struct state s = { key->low ^ UINT64_C(0x736f6d6570736575), key->high ^ UINT64_C(0x646f72616e646f6d),
			   key->low ^ UINT64_C(0x6c7967656e657261),
			   key->high ^ UINT64_C(0x7465646279746573) };
	const uint8_t *at = data;
	uint64_t word;
	for (size_t left = len; left >= sizeof word; left -= sizeof word, at += sizeof word) {
		memcpy(&word, at, sizeof word);
		sip_take(&s, word);
	}
	word = 0;
	memcpy(&word, at, len % sizeof word);
	sip_take(&s, word | (uint64_t)len << 56);
	s.c ^= 0xff;
	sip_mix(&s);
	sip_mix(&s);
	sip_mix(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}
