/*
 * SipHash-1-3: a hash of keys that come from outside, with a secret: nobody can choose keys that collide.
 * Jean-Philippe Aumasson, Daniel J. Bernstein: SipHash: a fast short-input PRF (2012).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
	uint64_t low, high;
};

uint64_t siphash(const struct siphash_key *key, const void *data, size_t len);
