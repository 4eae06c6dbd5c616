/*
 * What goes over the wire: u32be frames of one size whose payload begins with a serial number.
 *
 * Every payload differs, because a runtime that interns strings finds a repeated one ready-made. The low bytes of the
 * serial come first (on x86 and ARM), so hashes that sample a string's first four bytes see them differ.
 */
#pragma once

#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	FRAME_HEADER = 4,
	FRAME_SERIAL = 8,
	FRAME_HEAD = FRAME_HEADER + FRAME_SERIAL, /* the part that is written and checked */
};

static inline void frame_put_header(uint8_t *frame, size_t payload)
{
	uint32_t header = htonl((uint32_t)payload);

	memcpy(frame, &header, sizeof header);
}

static inline void frame_put_serial(uint8_t *frame, uint64_t serial)
{
	memcpy(frame + FRAME_HEADER, &serial, sizeof serial);
}

static inline size_t frame_payload(const uint8_t *frame)
{
	uint32_t header;

	memcpy(&header, frame, sizeof header);
	return ntohl(header);
}

static inline uint64_t frame_serial(const uint8_t *frame)
{
	uint64_t serial;

	memcpy(&serial, frame + FRAME_HEADER, sizeof serial);
	return serial;
}

/* Writes count frames, all but their serials. The filler is noise that does not repeat from frame to frame. */
void frame_fill(uint8_t *frames, size_t count, size_t payload);

/* Where the serials of this run begin: no other run uses the same ones. */
uint64_t frame_first_serial(void);
