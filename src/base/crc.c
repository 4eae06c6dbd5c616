#include "base/crc.h"

#include <string.h>

const char *const CRC16_NAMES[CRC16_COUNT + 1] = {
	"arc",     "ibm",       "modbus", "usb",     "maxim", "umts", "ccitt-false", "xmodem",
	"genibus", "aug-ccitt", "kermit", "mcrf4xx", "x25",   "dnp",  "en13757",     NULL,
};

const struct crc16 CRC16[CRC16_COUNT] = {
	{ 0x8005, 0x0000, 0x0000, true },  /* arc */
	{ 0x8005, 0x0000, 0x0000, true },  /* ibm */
	{ 0x8005, 0xffff, 0x0000, true },  /* modbus */
	{ 0x8005, 0xffff, 0xffff, true },  /* usb */
	{ 0x8005, 0x0000, 0xffff, true },  /* maxim */
	{ 0x8005, 0x0000, 0x0000, false }, /* umts */
	{ 0x1021, 0xffff, 0x0000, false }, /* ccitt-false */
	{ 0x1021, 0x0000, 0x0000, false }, /* xmodem */
	{ 0x1021, 0xffff, 0xffff, false }, /* genibus */
	{ 0x1021, 0x1d0f, 0x0000, false }, /* aug-ccitt */
	{ 0x1021, 0x0000, 0x0000, true },  /* kermit */
	{ 0x1021, 0xffff, 0x0000, true },  /* mcrf4xx */
	{ 0x1021, 0xffff, 0xffff, true },  /* x25 */
	{ 0x3d65, 0x0000, 0xffff, true },  /* dnp */
	{ 0x3d65, 0x0000, 0xffff, false }, /* en13757 */
};

static uint32_t reflect(uint32_t value, unsigned bits)
{
	uint32_t reflected = 0;
	for (unsigned i = 0; i < bits; i++)
		reflected |= (value >> i & 1) << (bits - 1 - i);
	return reflected;
}

void crc16_fill(const struct crc16 *crc, uint16_t table[256])
{
	uint32_t reflected = reflect(crc->polynomial, 16);
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t value = crc->is_reflected ? i : i << 8;
		for (int bit = 0; bit < 8; bit++) {
			if (crc->is_reflected)
				value = value >> 1 ^ (value & 1 ? reflected : 0);
			else
				value = value << 1 ^ (value & 0x8000 ? crc->polynomial : 0);
		}
		table[i] = (uint16_t)value;
	}
}

uint16_t crc16_empty(const struct crc16 *crc)
{
	return crc->first ^ crc->last;
}

uint16_t crc16_add(const struct crc16 *crc, const uint16_t table[256], uint16_t so_far, const uint8_t *data,
		   size_t n)
{
	uint16_t value = so_far ^ crc->last;
	if (crc->is_reflected)
		for (size_t i = 0; i < n; i++)
			value = (uint16_t)(value >> 8 ^ table[(value ^ data[i]) & 0xff]);
	else
		for (size_t i = 0; i < n; i++)
			value = (uint16_t)(value << 8 ^ table[value >> 8 ^ data[i]]);
	return value ^ crc->last;
}

void crc32c_fill(uint32_t tables[8][256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t value = i;
		for (int bit = 0; bit < 8; bit++)
			value = value >> 1 ^ (value & 1 ? 0x82f63b78 : 0);
		tables[0][i] = value;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			tables[k][i] = tables[k - 1][i] >> 8 ^ tables[0][tables[k - 1][i] & 0xff];
}

/* Eight bytes at a time, which need not wait for each other. */
uint32_t crc32c_add(const uint32_t tables[8][256], uint32_t so_far, const uint8_t *data, size_t n)
{
	uint32_t value = ~so_far;
	for (; n >= 8; n -= 8, data += 8) {
		value ^= (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
			 (uint32_t)data[3] << 24;
		value = tables[7][value & 0xff] ^ tables[6][value >> 8 & 0xff] ^
			tables[5][value >> 16 & 0xff] ^ tables[4][value >> 24] ^ tables[3][data[4]] ^
			tables[2][data[5]] ^ tables[1][data[6]] ^ tables[0][data[7]];
	}
	for (; n; n--, data++)
		value = value >> 8 ^ tables[0][(value ^ *data) & 0xff];
	return ~value;
}
