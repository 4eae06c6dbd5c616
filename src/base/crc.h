/*
 * Cyclic redundancy checks: those of 16 bits by their names in the catalogues, and CRC-32C. (CRC-32 is zlib's.)
 *
 * A CRC is continued with what the last call returned. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct crc16 {
	uint16_t polynomial, first,
	    last;          /* what the register begins with; what it is xored with at the end */
	bool is_reflected; /* bits come least significant first, and go so */
};

/* Their names, which NULL ends, and what they are, in that order. */
extern const char *const CRC16_NAMES[];
extern const struct crc16 CRC16[];

/* How many there are: for tables of theirs. */
enum { CRC16_COUNT = 15 };

void crc16_fill(const struct crc16 *crc, uint16_t table[256]);

/* Of no bytes. */
uint16_t crc16_empty(const struct crc16 *crc);

uint16_t crc16_add(const struct crc16 *crc, const uint16_t table[256], uint16_t so_far, const uint8_t *data,
		   size_t n);

void crc32c_fill(uint32_t tables[8][256]);

/* Of no bytes it is 0. */
uint32_t crc32c_add(const uint32_t tables[8][256], uint32_t so_far, const uint8_t *data, size_t n);
