#define _GNU_SOURCE
#include "frame.h"

#include "clock.h"

void frame_fill(uint8_t *frames, size_t count, size_t payload)
{
	uint64_t noise = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < count; i++) {
		uint8_t *frame = frames + i * (FRAME_HEADER + payload);

		frame_put_header(frame, payload);
		for (size_t k = FRAME_HEADER; k < FRAME_HEADER + payload; k++) {
			noise ^= noise << 13;
			noise ^= noise >> 7;
			noise ^= noise << 17;
			frame[k] = (uint8_t)noise;
		}
	}
}

uint64_t frame_first_serial(void)
{
	return clock_ns(CLOCK_REALTIME);
}
