#include "base/sha1.h"

#include <assert.h>
#include <string.h>

enum { BLOCK_BYTES = 64, ROUNDS = 80, WORDS = SHA1_BYTES / 4, LENGTH_BYTES = 8 };

static uint32_t rotated(uint32_t word, unsigned bits)
{
	return word << bits | word >> (32 - bits);
}

static uint32_t mixed(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
	switch (round / 20) {
	case 0:
		return ((b & c) | (~b & d)) + 0x5a827999;
	case 1:
		return (b ^ c ^ d) + 0x6ed9eba1;
	case 2:
		return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
	default:
		return (b ^ c ^ d) + 0xca62c1d6;
	}
}

static void take_block(uint32_t state[WORDS], const uint8_t block[BLOCK_BYTES])
{
	uint32_t words[ROUNDS], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
	for (unsigned i = 0; i < BLOCK_BYTES / 4; i++, block += 4)
		words[i] =
		    (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
	for (unsigned i = BLOCK_BYTES / 4; i < ROUNDS; i++)
		words[i] = rotated(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t next = rotated(a, 5) + mixed(i, b, c, d) + e + words[i];
		e = d;
		d = c;
		c = rotated(b, 30);
		b = a;
		a = next;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
}

void sha1(uint8_t digest[SHA1_BYTES], const void *data, size_t n)
{
	uint32_t state[WORDS] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint8_t blocks[2 * BLOCK_BYTES] = { 0 };
	assert(n <= SHA1_MOST);
	size_t end = n + 1 + LENGTH_BYTES <= BLOCK_BYTES ? BLOCK_BYTES : 2 * BLOCK_BYTES;
	memcpy(blocks, data, n);
	blocks[n] = 0x80;
	blocks[end - 2] = (uint8_t)(n >> 5);
	blocks[end - 1] = (uint8_t)(n << 3);
	for (size_t at = 0; at < end; at += BLOCK_BYTES)
		take_block(state, blocks + at);
	for (unsigned i = 0; i < SHA1_BYTES; i++)
		digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}
