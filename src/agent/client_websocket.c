/*
 * How a connection out becomes a WebSocket: it asks, and takes the answer (http/handshake.h).
 *
 * The answer comes as a frame, up to its empty line, and what is behind that are messages. They wait until the batch
 * with the answer is over: only then does the connection speak WebSocket, and is its agent made. That it comes to that
 * is said by `flushed`, which every connection has as soon as it has nothing to send.
 */
#include "agent/client.h"
#include "agent/websocket.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static struct channel *shaking_channel(const struct client *client)
{
	return &client->made->conn.first;
}

void client_unshake(struct client *client)
{
	struct websocket_worker *worker = &client_agents(client)->websocket;
	websocket_unreserve(worker, &(struct websocket_terms){ .kept_in = client->kept_in });
	client->kept_in = 0;
	client->requests = (struct requests){ 0 }; /* in the place of what it needed for that */
}

void client_shake(struct client *client)
{
	static const char NAME[] = "Sec-WebSocket-Key: ", END[] = "\r\n\r\n";
	struct websocket_worker *worker = &client_agents(client)->websocket;
	struct channel *channel = shaking_channel(client);
	const struct handshake *asked = &client_endpoint(client)->handshake;
	char field[sizeof NAME - 1 + HANDSHAKE_KEY_BYTES + sizeof END - 1], offer[HANDSHAKE_DEFLATE_BYTES];
	if (RAND_bytes(client->nonce, sizeof client->nonce) != 1) {
		client_fail(client, "the system has no randomness", UV_EIO, 0);
		return;
	}
	client->stage = CLIENT_SHAKES;
	memcpy(field, NAME, sizeof NAME - 1);
	handshake_key(client->nonce, field + sizeof NAME - 1);
	memcpy(field + sizeof NAME - 1 + HANDSHAKE_KEY_BYTES, END, sizeof END - 1);
	/* Where there is no memory for it, the connection ends, and who waits is told of that. */
	client->kept_in = (uint8_t)handshake_offer(asked, worker, offer);
	websocket_reserve(worker, &(struct websocket_terms){ .kept_in = client->kept_in });
	channel_send_raw(channel, asked->request, asked->request_bytes, 0);
	channel_send_raw(channel, offer, strlen(offer), 0);
	channel_send_raw(channel, field, sizeof field, 0);
}

static void fail_refused(struct client *client, const struct handshake_answer *answer)
{
	char text[ERRAND_TEXT_BYTES];
	snprintf(text, sizeof text, "%s: no WebSocket, the answer is %u%s%s", client_endpoint(client)->name,
		 answer->status, *answer->why ? " " : "", answer->why);
	client_fail(client, text, UV_EPROTO, answer->status);
}

static void fail_broken(struct client *client, const char *why)
{
	char text[ERRAND_TEXT_BYTES];
	snprintf(text, sizeof text, "%s: the answer to the handshake is wrong: %s",
		 client_endpoint(client)->name, why);
	client_fail(client, text, UV_EPROTO, 0);
}

static void switch_to_messages(struct client *client, const struct handshake_answer *answer)
{
	struct conn *conn = &client->made->conn;
	const struct client_endpoint *endpoint = client_endpoint(client);
	struct websocket own = endpoint->endpoint.websocket;
	own.terms = answer->terms;
	bool compresses = own.terms.window_bits;
	const struct protocol *protocol = compresses ? &own.protocol : &endpoint->endpoint.websocket.protocol;
	if (answer->subprotocol) {
		client->subprotocol_at = (uint16_t)(answer->subprotocol - endpoint->handshake.subprotocols);
		client->subprotocol_bytes = (uint8_t)answer->subprotocol_bytes;
	}
	channel_set_busy(&conn->first, true); /* messages wait */
	conn->first.flushing = true;
	if (conn_set_protocol(conn, protocol, compresses ? sizeof own : 0))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
}

void client_shaken(struct client *client, const struct batch *batch)
{
	enum { END_BYTES = 4, INTERIM_MAX = 16 }; /* the delimiter lies behind the frame */
	const struct frame *frame = &batch->frames[0];
	struct handshake_answer answer;
	switch (handshake_read(&client_endpoint(client)->handshake, &client_agents(client)->websocket,
			       client->kept_in, client->nonce, frame->data, frame->len + END_BYTES,
			       &answer)) {
	case HANDSHAKE_ACCEPTED:
		switch_to_messages(client, &answer);
		break;
	case HANDSHAKE_INTERIM:
		if (shaking_channel(client)->frames_in >= INTERIM_MAX)
			fail_broken(client, "too many responses 1xx");
		break;
	case HANDSHAKE_REFUSED:
		fail_refused(client, &answer);
		break;
	case HANDSHAKE_BROKEN:
		fail_broken(client, answer.why);
		break;
	}
}

void client_switched(struct client *client)
{
	struct channel *channel = shaking_channel(client);
	client->stage = CLIENT_OPENS;
	client_unshake(client);
	channel->flushing = false;
	channel->frames_in = 0;
	if (client_endpoint(client)->has_agent)
		channel_set_busy(channel, false);
	client_begin(client);
}

const char *client_subprotocol(const struct client *client, size_t *n)
{
	*n = client->subprotocol_bytes;
	return *n ? client_endpoint(client)->handshake.subprotocols + client->subprotocol_at : NULL;
}
