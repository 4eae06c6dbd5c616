/* Frames: their heads, their masks, and what may be wrong with them. */
#include "base/err.h"
#include "websocket/internal.h"

#include <openssl/rand.h>

#define BREACH_CODE(name, code, text) [BREACH_##name] = (code),
#define BREACH_TEXT(name, code, text) [BREACH_##name] = (text),
static const uint16_t CODES[BREACH_COUNT] = { WEBSOCKET_BREACHES(BREACH_CODE) };
static const char *const TEXTS[BREACH_COUNT] = { [BREACH_NONE] = "", WEBSOCKET_BREACHES(BREACH_TEXT) };

unsigned websocket_breach_code(enum breach breach)
{
	return CODES[breach];
}

const char *websocket_breach_text(enum breach breach)
{
	return TEXTS[breach];
}

static bool is_control(uint8_t opcode)
{
	return opcode & 8;
}

static enum breach check_first(const struct websocket *websocket, uint8_t first)
{
	uint8_t opcode = first & 15, reserved = first & BITS_RESERVED;
	bool may_compress =
	    websocket->terms.window_bits && (opcode == OPCODE_TEXT || opcode == OPCODE_BINARY);
	if (reserved & ~(may_compress ? BIT_COMPRESSED : 0))
		return BREACH_RESERVED;
	if ((opcode > OPCODE_BINARY && opcode < OPCODE_CLOSE) || opcode > OPCODE_PONG)
		return BREACH_OPCODE;
	return is_control(opcode) && !(first & BIT_FIN) ? BREACH_CONTROL_FRAGMENT : BREACH_NONE;
}

static enum breach check_second(const struct websocket *websocket, uint8_t first, uint8_t second)
{
	bool is_masked = second & BIT_MASKED;
	if (is_masked == websocket->is_client)
		return is_masked ? BREACH_MASKED : BREACH_UNMASKED;
	return is_control(first & 15) && (second & 127) > CONTROL_MAX ? BREACH_CONTROL_LENGTH : BREACH_NONE;
}

static uint64_t length_of(const uint8_t *bytes, unsigned n)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < n; i++)
		value = value << 8 | bytes[i];
	return value;
}

enum breach websocket_read_head(const struct websocket *websocket, const uint8_t *in, size_t n,
				struct frame_head *head)
{
	enum { TWO = 126, EIGHT = 127 };
	unsigned mask_bytes = websocket->is_client ? 0 : sizeof head->mask;
	enum breach breach;
	*head = (struct frame_head){ 0 };
	if (!n || (breach = check_first(websocket, in[0])))
		return n ? breach : BREACH_NONE;
	if (n < 2 || (breach = check_second(websocket, in[0], in[1])))
		return n < 2 ? BREACH_NONE : breach;
	unsigned length = in[1] & 127, more = length == TWO ? 2 : length == EIGHT ? 8 : 0;
	if (n < 2 + more)
		return BREACH_NONE;
	head->opcode = in[0] & 15;
	head->is_last = in[0] & BIT_FIN;
	head->is_compressed = in[0] & BIT_COMPRESSED;
	head->len = more ? length_of(in + 2, more) : length;
	if ((more == 2 && head->len < TWO) || (more == 8 && (head->len <= UINT16_MAX || head->len >> 63)))
		return BREACH_LENGTH;
	if (n < 2 + more + mask_bytes)
		return BREACH_NONE;
	memcpy(head->mask, in + 2 + more, mask_bytes);
	head->bytes = (uint8_t)(2 + more + mask_bytes);
	return BREACH_NONE;
}

uint8_t websocket_unmask(uint8_t *to, const uint8_t *from, size_t n, const uint8_t mask[4], uint8_t at)
{
	uint8_t turned[8];
	uint64_t eight, bytes;
	size_t i = 0;
	for (unsigned k = 0; k < sizeof turned; k++)
		turned[k] = mask[(at + k) & 3];
	memcpy(&eight, turned, sizeof eight);
	for (; n - i >= sizeof bytes; i += sizeof bytes) {
		memcpy(&bytes, from + i, sizeof bytes);
		bytes ^= eight;
		memcpy(to + i, &bytes, sizeof bytes);
	}
	for (unsigned k = 0; i < n; i++, k++)
		to[i] = from[i] ^ turned[k];
	return (uint8_t)((at + n) & 3);
}

/* Without a mask. */
static size_t put_head(uint8_t head[WEBSOCKET_HEAD_MAX], uint8_t first, size_t n)
{
	unsigned more = n < 126 ? 0 : n <= UINT16_MAX ? 2 : 8;
	head[0] = first;
	head[1] = (uint8_t)(more == 2 ? 126 : more ? 127 : n);
	for (unsigned i = 0; i < more; i++)
		head[2 + i] = (uint8_t)((uint64_t)n >> 8 * (more - 1 - i));
	return 2 + more;
}

size_t websocket_head(uint8_t head[WEBSOCKET_HEAD_MAX], bool is_binary, size_t len)
{
	return put_head(head, BIT_FIN | (is_binary ? OPCODE_BINARY : OPCODE_TEXT), len);
}

/* Many at once: the generator takes longer to be asked than to answer. False: it has failed. */
static bool draw_mask(struct websocket_worker *worker, uint8_t mask[4])
{
	if (!worker->random_left) {
		if (RAND_bytes(worker->random, sizeof worker->random) != 1)
			return false;
		worker->random_left = sizeof worker->random;
	}
	memcpy(mask, worker->random + sizeof worker->random - worker->random_left, 4);
	worker->random_left -= 4;
	return true;
}

int websocket_put_frame(const struct websocket *websocket, uint8_t first, const uint8_t *payload, size_t n,
			struct buf_pool *pool, struct buf **out)
{
	uint8_t mask[4] = { 0 };
	if (websocket->is_client && !draw_mask(websocket->worker, mask))
		return ERR_FRAME_REPLY;
	uint8_t *to = n > UINT32_MAX / 2 ? NULL : buf_reserve(pool, out, WEBSOCKET_HEAD_MAX + n);
	if (!to)
		return ERR_BUFFER_LIMIT;
	size_t head = put_head(to, first, n);
	if (websocket->is_client) {
		to[1] |= BIT_MASKED;
		memcpy(to + head, mask, sizeof mask);
		head += sizeof mask;
		websocket_unmask(to + head, payload, n, mask, 0);
	} else if (n) {
		memcpy(to + head, payload, n);
	}
	buf_commit(*out, head + n);
	return 0;
}
