/* Responses in pieces: onto the connection's output, and onto the tape. */
#include "agent/http.h"

#include "agent/member.h"
#include "agent/record.h"
#include "agent/run.h"
#include "base/err.h"

#include <uv.h>

/* More than this is not pending of a response in pieces, whatever limits.send_buffer is: none needs it to be fast. */
enum { PENDING_BYTES = 131072, PIECE_BYTES = 65536 };

struct appending {
	struct channel *channel;
	struct http_response *response;
	const uint64_t *length;
	const void *data;
	size_t n, added;
};

static const struct http *http_spoken(const struct channel *channel)
{
	return http_of(channel->conn->protocol);
}

static int append_head(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	struct appending *appending = data;
	struct channel *channel = appending->channel;
	int err = http_begin_pieces(http_spoken(channel), session, appending->response, appending->length,
				    pool, out);
	if (__builtin_expect(channel->recorded, 0) && !err)
		http_record_head(channel, appending->response,
				 (const char *)(*out)->data + (*out)->end - appending->response->bytes);
	return err;
}

static int append_one(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	const struct appending *appending = data;
	size_t before = buf_len(*out);
	int err = http_add_piece(session, appending->data, appending->n, pool, out);
	if (!err)
		record_appended(appending->channel, *out, before);
	return err;
}

static int append_of_file(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	struct appending *appending = data;
	size_t before = buf_len(*out);
	int err = http_add_from_file(session, appending->n, &appending->added, pool, out);
	if (!err)
		record_appended(appending->channel, *out, before);
	return err;
}

static int append_ending(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	const struct appending *appending = data;
	size_t before = buf_len(*out);
	int err = http_end_pieces(http_spoken(appending->channel), session, appending->data, appending->n,
				  pool, out);
	if (!err)
		record_appended(appending->channel, *out, before);
	return err;
}

int pieces_begin(struct channel *channel, struct http_response *response, const uint64_t *length)
{
	struct appending appending = { .channel = channel, .response = response, .length = length };
	response->closes |= channel->conn->draining;
	int err =
	    channel_send_by(channel, append_head, &appending, response->field_bytes + PROTOCOL_OVERHEAD_MAX);
	if (err)
		return err;
	http_forget_frame(channel->conn); /* a body that was chunked has been let go */
	channel->conn->resets = http_framing_of(&channel->conn->session) == FRAMING_END && !response->stands;
	channel->conn->stands = response->stands;
	if (response->stands && (channel->conn->eof || channel->conn->draining))
		conn_attend(channel->conn);
	return 0;
}

int pieces_add(struct channel *channel, const void *data, size_t n)
{
	struct appending appending = { .channel = channel, .data = data, .n = n };
	return channel_send_by(channel, append_one, &appending, n + HTTP_PIECE_OVERHEAD);
}

int pieces_add_from_file(struct channel *channel, size_t n, size_t *added)
{
	struct appending appending = { .channel = channel, .n = n };
	int err = channel_send_by(channel, append_of_file, &appending, n);
	*added = appending.added;
	return err;
}

/* A recording has to have the bytes. */
int pieces_pass_file(struct channel *channel, size_t n, size_t *added)
{
	struct session *session = &channel->conn->session;
	int file;
	uint64_t at;
	*added = 0;
	n = channel->recorded ? 0 : http_part_of_file(session, n, &file, &at);
	int err = n ? channel_pass_file(channel, file, at, n, added) : 0;
	if (!err)
		http_sent_of_file(session, *added);
	return err;
}

int pieces_end(struct channel *channel, const char *trailers, size_t n)
{
	const struct http_request *request = http_pending(&channel->conn->session);
	bool keeps = request && request->keeps;
	struct appending appending = { .channel = channel, .data = trailers, .n = n };
	int err = channel_send_by(channel, append_ending, &appending, n + HTTP_PIECE_OVERHEAD);
	if (err)
		return err;
	channel->conn->resets = channel->conn->stands = false;
	if (channel->has_hub) /* it was the response that was given what is published */
		member_end_sent(channel);
	http_answered(channel, http_is_last(&channel->conn->session), keeps);
	return 0;
}

void pieces_forsake(struct channel *channel, bool is_torn)
{
	if (!channel_is_open(channel) || !http_is_spoken(channel))
		return;
	if (!is_torn) {
		http_set_amid(&channel->conn->session, false);
	} else {
		if (channel->has_hub)
			member_end_sent(channel);
		channel_close(channel, REASON_AGENT, CLOSE_FLUSH);
	}
	conn_attend(channel->conn); /* messages may have waited for it */
}

static size_t pending_max(const struct channel *channel)
{
	size_t mark = channel->conn->endpoint->rules.send_buffer_bytes;
	return mark < PENDING_BYTES ? mark : PENDING_BYTES;
}

/* It depends on settings alone, so that a recording has the same pieces again. */
size_t pieces_size(const struct channel *channel)
{
	size_t most = pending_max(channel) / 2;
	return most < PIECE_BYTES ? most + !most : PIECE_BYTES;
}

bool pieces_has_room(const struct channel *channel)
{
	size_t pending = conn_pending_bytes(channel->conn);
	return !pending || pending + pieces_size(channel) + HTTP_PIECE_OVERHEAD <= pending_max(channel);
}
