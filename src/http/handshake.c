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

/* ---- permessage-deflate: RFC 7692, 7.1 ---- */

static const char DEFLATE[] = "permessage-deflate";

/* 8 to 15, as text without more; 0: it is none. */
static uint8_t read_bits(struct part text)
{
	if (text.n == 1 && (text.at[0] == '8' || text.at[0] == '9'))
		return (uint8_t)(text.at[0] - '0');
	bool is_two = text.n == 2 && text.at[0] == '1' && text.at[1] >= '0' && text.at[1] <= '5';
	return is_two ? (uint8_t)(10 + text.at[1] - '0') : 0;
}

/* The parameters of an offer, or of what was taken of one, each once at most. */
struct deflate_offer {
	bool server_alone, client_alone;  /* no context takeover */
	bool has_client_bits;             /* in an offer it needs no value */
	uint8_t server_bits, client_bits; /* 0: none are named */
};

static bool take_flag(bool *flag, bool has_value)
{
	bool is_right = !*flag && !has_value;
	*flag = true;
	return is_right;
}

static bool take_parameter(struct deflate_offer *offer, struct part text, bool is_offer)
{
	struct part rest = text, name;
	next_part(&rest, '=', &name);
	bool has_value = rest.at;
	struct part value = trimmed(rest);
	if (value.n >= 2 && value.at[0] == '"' && value.at[value.n - 1] == '"')
		value = (struct part){ value.at + 1, value.n - 2 };
	uint8_t bits = has_value ? read_bits(value) : 0;
	if (part_is(name, "server_no_context_takeover"))
		return take_flag(&offer->server_alone, has_value);
	if (part_is(name, "client_no_context_takeover"))
		return take_flag(&offer->client_alone, has_value);
	if (part_is(name, "server_max_window_bits") && !offer->server_bits) {
		offer->server_bits = bits;
		return bits;
	}
	if (!part_is(name, "client_max_window_bits") || offer->has_client_bits)
		return false;
	offer->has_client_bits = true;
	offer->client_bits = bits;
	return bits || (is_offer && !has_value);
}

static bool is_deflate(struct part text)
{
	struct part name;
	next_part(&text, ';', &name);
	return part_is(name, DEFLATE);
}

/* False: it has a parameter that it cannot have. */
static bool read_deflate(struct part text, bool is_offer, struct deflate_offer *offer)
{
	struct part part;
	*offer = (struct deflate_offer){ 0 };
	next_part(&text, ';', &part);
	while (next_part(&text, ';', &part))
		if (!(is_offer && !part.n) && !take_parameter(offer, part, is_offer))
			return false;
	return true;
}

static uint8_t most_bits(uint8_t bits)
{
	return bits ? bits : WEBSOCKET_BITS_MAX;
}

/* zlib makes nine of eight. */
static unsigned zlib_bits(unsigned bits)
{
	return bits < WEBSOCKET_BITS_MIN ? WEBSOCKET_BITS_MIN : bits;
}

/* Of what this side has offered. Without `keeps` there are no windows. */
static void client_terms(const struct deflate_offer *taken, const struct websocket_worker *keeps,
			 struct websocket_terms *terms)
{
	*terms = (struct websocket_terms){ .window_bits = most_bits(taken->client_bits) };
	if (!taken->server_alone)
		terms->kept_in = (uint8_t)zlib_bits(taken->server_bits);
	if (keeps && !taken->client_alone)
		terms->kept_out = (uint8_t)websocket_window_out(keeps, terms->window_bits);
}

/*
 * The window of what a client sends, which is the client's choice where it has not offered client_max_window_bits, or
 * has named less there.
 */
static unsigned clients_window(const struct deflate_offer *offer, const struct websocket_worker *keeps,
			       size_t beside)
{
	unsigned theirs = zlib_bits(most_bits(offer->client_bits));
	bool can_limit = offer->has_client_bits && theirs > WEBSOCKET_BITS_KEPT;
	unsigned bits = websocket_window_in(keeps, can_limit ? WEBSOCKET_BITS_KEPT : theirs, beside);
	return offer->has_client_bits || bits == theirs ? bits : 0;
}

static void server_terms(const struct deflate_offer *offer, const struct websocket_worker *keeps,
			 struct websocket_terms *terms)
{
	*terms = (struct websocket_terms){ .window_bits = most_bits(offer->server_bits) };
	if (keeps && !offer->server_alone)
		terms->kept_out = (uint8_t)websocket_window_out(keeps, terms->window_bits);
	if (keeps && !offer->client_alone)
		terms->kept_in =
		    (uint8_t)clients_window(offer, keeps, websocket_window_out_bytes(terms->kept_out));
}

static void say_terms(const struct deflate_offer *offer, const struct websocket_terms *terms,
		      char field[HANDSHAKE_DEFLATE_BYTES])
{
	char server[32] = "", client[32] = "";
	if (offer->server_bits)
		snprintf(server, sizeof server, "; server_max_window_bits=%u", terms->window_bits);
	if (terms->kept_in && terms->kept_in < most_bits(offer->client_bits))
		snprintf(client, sizeof client, "; client_max_window_bits=%u", terms->kept_in);
	snprintf(field, HANDSHAKE_DEFLATE_BYTES, "Sec-WebSocket-Extensions: %s%s%s%s%s\r\n", DEFLATE,
		 terms->kept_out ? "" : "; server_no_context_takeover",
		 terms->kept_in ? "" : "; client_no_context_takeover", server, client);
}

bool handshake_agree(const char *offers, size_t n, const struct websocket_worker *worker, bool keeps,
		     struct websocket_terms *terms, char field[HANDSHAKE_DEFLATE_BYTES])
{
	struct part list = { (const uint8_t *)offers, n }, part;
	struct deflate_offer offer;
	*terms = (struct websocket_terms){ 0 };
	*field = '\0';
	while (next_part(&list, ',', &part)) {
		if (!is_deflate(part) || !read_deflate(part, true, &offer))
			continue;
		server_terms(&offer, keeps ? worker : NULL, terms);
		say_terms(&offer, terms, field);
		return true;
	}
	return false;
}

/* A server that would keep more than there is a window for is offered that it keeps nothing. */
unsigned handshake_offer(const struct handshake *asked, const struct websocket_worker *worker,
			 char field[HANDSHAKE_DEFLATE_BYTES])
{
	static const char ALONE[] = "permessage-deflate; server_no_context_takeover; "
				    "client_no_context_takeover; client_max_window_bits";
	unsigned bits =
	    asked->compresses && asked->keeps ? websocket_window_in(worker, WEBSOCKET_BITS_KEPT, 0) : 0;
	char kept[80] = "";
	if (bits)
		snprintf(kept, sizeof kept, "%s; server_max_window_bits=%u; client_max_window_bits, ",
			 DEFLATE, bits);
	*field = '\0';
	if (asked->compresses)
		snprintf(field, HANDSHAKE_DEFLATE_BYTES, "Sec-WebSocket-Extensions: %s%s\r\n", kept, ALONE);
	return bits;
}

/* ---- the answer ---- */

/* What its fields have said so far. */
struct answering {
	const struct handshake *asked;
	const struct websocket_worker *worker;
	unsigned promised;
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

/* RFC 7692, 7.1: what was asked of the server it has to say. */
static bool take_extension(struct answering *answering, struct part text)
{
	const struct websocket_worker *keeps = answering->asked->keeps ? answering->worker : NULL;
	struct deflate_offer taken;
	if (!answering->asked->compresses || !is_deflate(text))
		return handshake_fail(answering, "it has chosen an extension that was not offered");
	if (answering->has_extension)
		return handshake_fail(answering, "it has chosen an extension twice");
	answering->has_extension = true;
	if (!read_deflate(text, false, &taken))
		return handshake_fail(answering, "permessage-deflate has a parameter that it cannot have");
	if (!taken.server_alone && !answering->promised)
		return handshake_fail(answering,
				      "it would compress with what was before (server_no_context_takeover)");
	if (!taken.server_alone && most_bits(taken.server_bits) > answering->promised)
		return handshake_fail(answering, "it would compress with more of what was before than was "
						 "offered (server_max_window_bits)");
	client_terms(&taken, keeps, &answering->answer->terms);
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

enum handshake_outcome handshake_read(const struct handshake *asked, const struct websocket_worker *worker,
				      unsigned promised, const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
				      const uint8_t *head, size_t n, struct handshake_answer *answer)
{
	static const struct http_reader_limits LIMITS = { HANDSHAKE_HEAD_MAX, HANDSHAKE_FIELDS_MAX };
	struct answering answering = {
		.asked = asked, .worker = worker, .promised = promised, .answer = answer
	};
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
