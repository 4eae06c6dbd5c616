/* Close frames: the peer's, and what is said in this side's. */
#include "base/counters.h"
#include "base/err.h"
#include "base/text.h"
#include "websocket/internal.h"

#include <stdlib.h>

enum {
	CODE_NORMAL = 1000,
	CODE_GOING = 1001,
	CODE_RULES = 1002,
	CODE_NOTHING_SAID = 1005,
	CODE_NO_FRAME = 1006,
	CODE_BYTES = 1007,
	CODE_POLICY = 1008,
	CODE_SIZE = 1009,
	CODE_ERROR = 1011,
	CODE_LATER = 1013,
	CODES_OWN = 3000,
	CODES_END = 5000
};

bool websocket_code_is_valid(unsigned code)
{
	bool is_reserved = code == 1004 || code == CODE_NOTHING_SAID || code == CODE_NO_FRAME;
	return (code >= CODE_NORMAL && code <= 1014 && !is_reserved) ||
	       (code >= CODES_OWN && code < CODES_END);
}

bool websocket_code_is_scripts(unsigned code)
{
	return code == CODE_NORMAL || (code >= CODES_OWN && code < CODES_END);
}

static struct websocket_close *new_close(unsigned code, const void *text, size_t n)
{
	struct websocket_close *close = malloc(sizeof *close + n);
	if (!close)
		return NULL;
	close->code = (uint16_t)code;
	close->text_bytes = (uint8_t)n;
	if (n)
		memcpy(close->text, text, n);
	return close;
}

enum breach websocket_take_close(struct websocket_session *s, const uint8_t *payload, size_t n, int *error)
{
	unsigned code = n >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 0;
	if (n == 1)
		return BREACH_CLOSE_LENGTH;
	if (n && !websocket_code_is_valid(code))
		return BREACH_CLOSE_CODE;
	if (n > 2 && !text_is_utf8(payload + 2, n - 2))
		return BREACH_UTF8;
	s->peers = new_close(code, payload + 2, n > 2 ? n - 2 : 0);
	*error = s->peers ? 0 : ERR_BUFFER_LIMIT;
	return BREACH_NONE;
}

bool websocket_say_at_close(struct session *session, unsigned code, const char *text, size_t n)
{
	struct websocket_session *s = websocket_session_of(session);
	if (s && !s->own)
		s->own = new_close(code, text, n);
	return s && s->own;
}

void websocket_unsay_at_close(struct session *session)
{
	struct websocket_session *s = websocket_session_of(session);
	if (!s)
		return;
	free(s->own);
	s->own = NULL;
}

unsigned websocket_peers_code(const struct session *session, const char **text, size_t *n)
{
	const struct websocket_session *s = websocket_session_of(session);
	const struct websocket_close *peers = s ? s->peers : NULL;
	*text = peers ? peers->text : "";
	*n = peers ? peers->text_bytes : 0;
	return !peers ? 0 : peers->code ? peers->code : CODE_NOTHING_SAID;
}

/* 0: there is nobody to tell, or nothing can be said. */
static unsigned code_of(const struct websocket_session *s, enum close_reason reason)
{
	switch (reason) {
	case REASON_AGENT: /* it has left a message unfinished, unless it says otherwise */
		return s->out_begun ? CODE_ERROR : CODE_NORMAL;
	case REASON_ERROR:
	case REASON_PROCEED_TIMEOUT:
	case REASON_MEMORY:
		return CODE_ERROR;
	case REASON_FRAME_ERROR:
	case REASON_OVERSIZE:
		return websocket_breach_code((enum breach)s->breach);
	case REASON_DRAIN:
	case REASON_IDLE_TIMEOUT:
	case REASON_LINK:
		return CODE_GOING;
	case REASON_READ_TIMEOUT:
	case REASON_SLOW_CONSUMER:
	case REASON_KICK:
		return CODE_POLICY;
	case REASON_LIMIT:
		return CODE_LATER;
	default:
		return 0;
	}
}

static counter *counter_of(struct counters *counters, unsigned code)
{
	switch (code) {
	case CODE_NORMAL:
		return &counters->websocket_1000;
	case CODE_GOING:
		return &counters->websocket_1001;
	case CODE_RULES:
		return &counters->websocket_1002;
	case CODE_NOTHING_SAID:
		return &counters->websocket_1005;
	case CODE_NO_FRAME:
		return &counters->websocket_1006;
	case CODE_BYTES:
		return &counters->websocket_1007;
	case CODE_POLICY:
		return &counters->websocket_1008;
	case CODE_SIZE:
		return &counters->websocket_1009;
	case CODE_ERROR:
		return &counters->websocket_1011;
	default:
		return &counters->websocket_other;
	}
}

void websocket_count_end(const struct websocket_session *s, struct counters *counters)
{
	unsigned peers = s->peers ? s->peers->code ? s->peers->code : CODE_NOTHING_SAID : 0;
	count(counter_of(counters, peers ? peers : s->said ? s->said : CODE_NO_FRAME));
}

/* Where to send it. */
struct closing {
	const struct websocket *websocket;
	struct buf_pool *pool;
	struct buf **out;
};

/* One that cannot be masked is not sent: the connection ends all the same. */
static int put_close(const struct closing *to, unsigned code, const void *text, size_t n)
{
	uint8_t payload[CONTROL_MAX] = { (uint8_t)(code >> 8), (uint8_t)code };
	if (n)
		memcpy(payload + 2, text, n);
	int err = websocket_put_frame(to->websocket, BIT_FIN | OPCODE_CLOSE, payload, code ? 2 + n : 0,
				      to->pool, to->out);
	return err == ERR_FRAME_REPLY ? 0 : err;
}

int websocket_close(const struct websocket *websocket, struct websocket_session *s, enum close_reason reason,
		    struct buf_pool *pool, struct buf **out)
{
	const struct closing to = { websocket, pool, out };
	const struct websocket_close *own = s->own, *peers = s->peers;
	unsigned code = own && own->code ? own->code : code_of(s, reason);
	const char *why = websocket_breach_text((enum breach)s->breach);
	int err = 0;
	if (own)
		err = put_close(&to, code, own->text, code ? own->text_bytes : 0);
	else if (peers && reason == REASON_PEER)
		err = put_close(&to, peers->code, "", 0);
	else if (code)
		err = put_close(&to, code, why, strlen(why));
	s->said = err ? 0 : (uint16_t)code;
	return err;
}
