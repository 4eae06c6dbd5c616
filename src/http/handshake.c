#include "http/handshake.h"

#include "base/base64.h"
#include "base/sha1.h"
#include "http/internal.h"
#include "http/reader.h"

#include <stdio.h>

void handshake_accept(const char key[HANDSHAKE_KEY_BYTES], char accept[HANDSHAKE_ACCEPT_BYTES])
{
	static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	char text[HANDSHAKE_KEY_BYTES + sizeof GUID - 1];
	uint8_t digest[SHA1_BYTES];
	memcpy(text, key, HANDSHAKE_KEY_BYTES);
	memcpy(text + HANDSHAKE_KEY_BYTES, GUID, sizeof GUID - 1);
	sha1(digest, text, sizeof text);
	base64_encode(accept, digest, sizeof digest, BASE64_PLAIN, true);
}

void handshake_key(const uint8_t nonce[HANDSHAKE_NONCE_BYTES], char key[HANDSHAKE_KEY_BYTES])
{
	base64_encode(key, nonce, HANDSHAKE_NONCE_BYTES, BASE64_PLAIN, true);
}

/* ---- texts ---- */

struct part {
	const uint8_t *at;
	size_t n;
};

static struct part trimmed(struct part part)
{
	http_trim(&part.at, &part.n);
	return part;
}

static bool part_is(struct part part, const char *word)
{
	return part.n == strlen(word) && !memcmp(part.at, word, part.n);
}

/* Cuts what is before the separator off *rest. False: there is nothing left of it: rest->at is NULL. */
static bool next_part(struct part *rest, uint8_t separator, struct part *part)
{
	if (!rest->at)
		return false;
	const uint8_t *end = rest->n ? memchr(rest->at, separator, rest->n) : NULL;
	size_t n = end ? (size_t)(end - rest->at) : rest->n;
	*part = trimmed((struct part){ rest->at, n });
	rest->at = end ? end + 1 : NULL;
	rest->n = end ? rest->n - n - 1 : 0;
	return true;
}

static bool has_word(struct part list, const char *word)
{
	struct part part;
	while (next_part(&list, ',', &part))
		if (http_is_word(part.at, part.n, word))
			return true;
	return false;
}

/* ---- the answer ---- */

/* What its fields have said so far. */
struct answering {
	const struct handshake *asked;
	struct handshake_answer *answer;
	char accept[HANDSHAKE_ACCEPT_BYTES];
	bool has_upgrade, has_connection, has_accept, has_extension;
};

static bool handshake_fail(struct answering *answering, const char *why)
{
	snprintf(answering->answer->why, sizeof answering->answer->why, "%s", why);
	return false;
}

static bool take_upgrade(struct answering *answering, struct part value)
{
	if (answering->has_upgrade || !http_is_word(value.at, value.n, "websocket"))
		return handshake_fail(answering, "it switches to something else than a WebSocket (Upgrade)");
	answering->has_upgrade = true;
	return true;
}

static bool take_accept(struct answering *answering, struct part value)
{
	if (answering->has_accept || value.n != sizeof answering->accept ||
	    memcmp(value.at, answering->accept, value.n) != 0)
		return handshake_fail(answering,
				      "its Sec-WebSocket-Accept is not what the key of the request makes");
	answering->has_accept = true;
	return true;
}

static bool take_subprotocol(struct answering *answering, struct part value)
{
	const char *offered = answering->asked->subprotocols;
	struct part rest = { (const uint8_t *)offered, strlen(offered) }, part;
	if (answering->answer->subprotocol)
		return handshake_fail(answering, "it has chosen several subprotocols");
	while (rest.n && next_part(&rest, ',', &part)) {
		if (part.n != value.n || memcmp(part.at, value.at, part.n) != 0)
			continue;
		answering->answer->subprotocol = (const char *)part.at;
		answering->answer->subprotocol_bytes = part.n;
		return true;
	}
	return handshake_fail(answering, "it has chosen a subprotocol that was not offered");
}

/* 8 to 15, as text without more; 0: it is none. */
static uint8_t read_bits(struct part text)
{
	if (text.n == 1 && (text.at[0] == '8' || text.at[0] == '9'))
		return (uint8_t)(text.at[0] - '0');
	bool is_two = text.n == 2 && text.at[0] == '1' && text.at[1] >= '0' && text.at[1] <= '5';
	return is_two ? (uint8_t)(10 + text.at[1] - '0') : 0;
}

/* The parameters of permessage-deflate, each once at most. */
struct deflate_terms {
	bool has_server_takeover, has_client_takeover; /* none takes place */
	uint8_t server_bits, client_bits;
};

static bool take_term(struct deflate_terms *terms, struct part text)
{
	struct part rest = text, name;
	next_part(&rest, '=', &name);
	bool has_value = rest.at;
	struct part value = trimmed(rest);
	if (value.n >= 2 && value.at[0] == '"' && value.at[value.n - 1] == '"')
		value = (struct part){ value.at + 1, value.n - 2 };
	bool *flag = part_is(name, "server_no_context_takeover")   ? &terms->has_server_takeover
		     : part_is(name, "client_no_context_takeover") ? &terms->has_client_takeover
								   : NULL;
	uint8_t *bits = part_is(name, "server_max_window_bits")   ? &terms->server_bits
			: part_is(name, "client_max_window_bits") ? &terms->client_bits
								  : NULL;
	if (flag ? *flag || has_value : !bits || *bits || !has_value || !read_bits(value))
		return false;
	if (flag)
		*flag = true;
	else
		*bits = read_bits(value);
	return true;
}

/* RFC 7692, 7.1: what was asked of the server it has to say. */
static bool take_extension(struct answering *answering, struct part text)
{
	struct deflate_terms terms = { 0 };
	struct part part;
	next_part(&text, ';', &part);
	if (!answering->asked->compresses || !part_is(part, "permessage-deflate"))
		return handshake_fail(answering, "it has chosen an extension that was not offered");
	if (answering->has_extension)
		return handshake_fail(answering, "it has chosen an extension twice");
	answering->has_extension = true;
	while (next_part(&text, ';', &part))
		if (!take_term(&terms, part))
			return handshake_fail(answering,
					      "permessage-deflate has a parameter that it cannot have");
	if (!terms.has_server_takeover)
		return handshake_fail(answering,
				      "it would compress with what was before (server_no_context_takeover)");
	enum { BITS_MOST = 15 };
	answering->answer->window_bits = terms.client_bits ? terms.client_bits : BITS_MOST;
	return true;
}

static bool take_extensions(struct answering *answering, struct part list)
{
	struct part part;
	while (next_part(&list, ',', &part))
		if (part.n && !take_extension(answering, part))
			return false;
	return true;
}

/* A field line. False: answer->why. */
static bool take_answer_field(struct answering *answering, struct part line)
{
	struct part value = line, name;
	next_part(&value, ':', &name);
	value = trimmed(value);
	if (http_is_word(name.at, name.n, "upgrade"))
		return take_upgrade(answering, value);
	if (http_is_word(name.at, name.n, "sec-websocket-accept"))
		return take_accept(answering, value);
	if (http_is_word(name.at, name.n, "sec-websocket-protocol"))
		return take_subprotocol(answering, value);
	if (http_is_word(name.at, name.n, "sec-websocket-extensions"))
		return take_extensions(answering, value);
	if (http_is_word(name.at, name.n, "connection"))
		answering->has_connection |= has_word(value, "upgrade");
	return true;
}

static bool check_answer(struct answering *answering, const uint8_t *head, size_t n)
{
	enum { END_BYTES = 2 }; /* the empty line */
	struct part rest = { head, n - END_BYTES }, line;
	next_part(&rest, '\n', &line);
	while (next_part(&rest, '\n', &line) && line.n) {
		line.n -= line.at[line.n - 1] == '\r';
		if (!take_answer_field(answering, line))
			return false;
	}
	if (!answering->has_upgrade)
		return handshake_fail(answering, "it does not say to what it switches (Upgrade: websocket)");
	if (!answering->has_connection)
		return handshake_fail(answering, "it does not say that it switches (Connection: Upgrade)");
	if (!answering->has_accept)
		return handshake_fail(answering, "it has no Sec-WebSocket-Accept");
	return true;
}

/* What is behind the status: of what is no ASCII nothing is shown. */
static void keep_phrase(struct handshake_answer *answer, const uint8_t *head, size_t n)
{
	enum { AT_PHRASE = 13, PHRASE_MAX = 80 }; /* "HTTP/1.1 404 " */
	size_t at = AT_PHRASE, used = 0;
	for (; at < n && head[at] >= ' ' && head[at] <= '~' && used < PHRASE_MAX; at++)
		answer->why[used++] = (char)head[at];
	answer->why[used] = '\0';
}

enum handshake_outcome handshake_read(const struct handshake *asked,
				      const uint8_t nonce[HANDSHAKE_NONCE_BYTES], const uint8_t *head,
				      size_t n, struct handshake_answer *answer)
{
	static const struct http_reader_limits LIMITS = { HANDSHAKE_HEAD_MAX, HANDSHAKE_FIELDS_MAX };
	struct answering answering = { .asked = asked, .answer = answer };
	struct http_answer read;
	char key[HANDSHAKE_KEY_BYTES];
	const char *why;
	*answer = (struct handshake_answer){ 0 };
	enum http_event event = http_read_answer(&LIMITS, head, n, &read, &why);
	if (event == HTTP_INTERIM)
		return HANDSHAKE_INTERIM;
	answer->status = read.status;
	if (event != HTTP_HEAD) {
		handshake_fail(&answering, event == HTTP_BROKEN ? why : "it is not whole");
		return HANDSHAKE_BROKEN;
	}
	if (read.status != 101) {
		keep_phrase(answer, head, n);
		return HANDSHAKE_REFUSED;
	}
	handshake_key(nonce, key);
	handshake_accept(key, answering.accept);
	bool can = !read.is_1_0 || handshake_fail(&answering, "it switches protocols by HTTP/1.0");
	return can && check_answer(&answering, head, n) ? HANDSHAKE_ACCEPTED : HANDSHAKE_BROKEN;
}
