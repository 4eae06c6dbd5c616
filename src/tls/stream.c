#include "tls/stream.h"

#include "base/err.h"
#include "tls/context.h"
#include "tls/failure.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
	DISCARD_READS = 8,
	DISCARD_BYTES = 4096,
	OPENING_READS = 4, /* of the stream below, in one step of a handshake */
	READING_READS =
	    1, /* ... and in one read: a peer may send records that hold no byte for us, on and on */
	/* Steps of OpenSSL's in a row that bring us none; a message is three. A server begins with some tickets. */
	ASIDES_OF_CLIENT_MAX = 32,
	ASIDES_OF_SERVER_MAX = 96,
};

struct tls_stream {
	struct stream_layer layer; /* first */
	SSL *ssl;
	const char *why; /* it has failed */
	char *why_made;  /* ... which is that, where it is no static text */
	int err;         /* ... and with what, from then on; 0: it has not */
	int below_err;   /* what the stream below said last, when it was neither bytes nor UV_EAGAIN */
	uint8_t read_needs, write_needs; /* STREAM_*: what reading and writing wait for */
	bool is_open : 1;
	bool below_ended : 1; /* the peer sends no more bytes */
	bool may_hold : 1;    /* there may be more to read without another byte */
	bool owes_end : 1;    /* ... and what comes next is an end, or an error, that was met behind bytes */
	bool held_back : 1;   /* ... since a read may not go on for ever: bytes may wait below */
	bool has_heard : 1;   /* a byte has come */
	bool is_shut : 1;     /* our close_notify is sent */
	bool more_comes : 1;  /* behind the record that is being written */
	unsigned below_reads; /* that a call may still make */
	unsigned asides;      /* steps since the last byte for us: changes of keys, tickets */
};

static struct tls_stream *tls_of(const struct stream *stream)
{
	return (struct tls_stream *)(void *)stream;
}

/* ---- OpenSSL's bytes are the stream's below ---- */

static int below_read(BIO *bio, char *to, int n)
{
	struct tls_stream *tls = BIO_get_data(bio);
	struct stream *below = tls->layer.below;
	BIO_clear_retry_flags(bio);
	if (!tls->below_reads) {
		tls->held_back = true;
		BIO_set_retry_read(bio);
		return -1;
	}
	tls->below_reads--;
	ssize_t got = below->ops->read(below, to, (size_t)n);
	tls->below_ended = tls->below_ended || got == 0;
	tls->has_heard = tls->has_heard || got > 0;
	if (got == UV_EAGAIN)
		BIO_set_retry_read(bio);
	else if (got < 0)
		tls->below_err = (int)got;
	return got < 0 ? -1 : (int)got;
}

static int below_write(BIO *bio, const char *from, int n)
{
	struct tls_stream *tls = BIO_get_data(bio);
	struct stream *below = tls->layer.below;
	BIO_clear_retry_flags(bio);
	ssize_t put = tls->more_comes ? stream_write_more(below, from, (size_t)n)
				      : below->ops->write(below, from, (size_t)n);
	if (put == UV_EAGAIN)
		BIO_set_retry_write(bio);
	else if (put < 0)
		tls->below_err = (int)put;
	return put < 0 ? -1 : (int)put;
}

static long below_control(BIO *bio, int command, long number, void *pointer)
{
	const struct tls_stream *tls = BIO_get_data(bio);
	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_EOF)
		return tls->below_ended;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *below_method;

static void make_method(void)
{
	below_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
	if (!below_method)
		return;
	BIO_meth_set_read(below_method, below_read);
	BIO_meth_set_write(below_method, below_write);
	BIO_meth_set_ctrl(below_method, below_control);
}

/* Only until it has opened: a context may go then. */
static const struct tls_side *side_of(const struct tls_stream *tls)
{
	return ((const struct tls_context *)tls->layer.settings)->side;
}

static int begin(struct tls_stream *tls)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_method);
	SSL *ssl = side_of(tls)->begin(tls->layer.settings);
	BIO *bio = ssl && below_method ? BIO_new(below_method) : NULL;
	if (!bio) {
		SSL_free(ssl);
		ERR_clear_error();
		return UV_ENOMEM;
	}
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, tls);
	tls->ssl = ssl;
	return 0;
}

/* ---- what OpenSSL says ---- */

/*
 * SSL_get_error() takes whatever is in the queue for this call's. There hardly ever is anything, and to clear it costs
 * four times as much as to look: it goes through all of its 16 entries.
 */
static void forget_errors(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
}

static int fail_with(struct tls_stream *tls, int err, const char *why)
{
	tls->err = err;
	tls->why = why;
	return err;
}

/*
 * It has gone without a close_notify. Before it has opened, that is a handshake that was cut off. A server that cannot
 * be reached has said nothing that TLS could be blamed for.
 */
static int cut_off(struct tls_stream *tls)
{
	if (tls->is_open)
		return fail_with(tls, UV_ECONNRESET, "cut off without a close_notify");
	if (tls->below_err && !tls->has_heard && !SSL_is_server(tls->ssl))
		return fail_with(tls, tls->below_err, NULL);
	return fail_with(tls, ERR_TLS, failure_of_leaving(tls->ssl, tls->has_heard));
}

/*
 * A step towards a message that is not for us, of 1.3: a change of keys costs the one who asks for it less than us, and
 * so does a ticket.
 */
static void note_aside(const SSL *ssl, int where, int result)
{
	(void)result;
	if (where & SSL_CB_LOOP)
		((struct tls_stream *)SSL_get_app_data(ssl))->asides++;
}

static bool is_end_of_file(void)
{
	return ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

/* Why a call has not succeeded: UV_EAGAIN and *needs, 0: the peer's end of stream, or the error that ends it. */
static int outcome_of(struct tls_stream *tls, int result, uint8_t *needs)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		*needs = STREAM_READ;
		return UV_EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*needs = STREAM_WRITE;
		return UV_EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return tls->below_err && tls->is_open ? fail_with(tls, tls->below_err, NULL) : cut_off(tls);
	default:
		return is_end_of_file() ? cut_off(tls)
					: fail_with(tls, ERR_TLS, failure_text(tls->ssl, &tls->why_made));
	}
}

/* ---- the handshake ---- */

/*
 * What a client that speaks something else is told: HTTP in its own language, others by the alert that they will not
 * understand, but that people know when they see it: fatal, protocol_version (RFC 8446 6.2). Who speaks TLS has had an
 * alert of OpenSSL's.
 */
static void answer_plain(struct tls_stream *tls)
{
	static const char TEXT[] =
	    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 45\r\n"
	    "Connection: close\r\n\r\nThis port speaks TLS: use https:// or tls://\n";
	static const char ALERT[] = { 21, 3, 3, 0, 2, 2, 70 };
	struct stream *below = tls->layer.below;
	int reason = ERR_GET_REASON(ERR_peek_last_error());
	if (reason == SSL_R_HTTP_REQUEST || reason == SSL_R_HTTPS_PROXY_REQUEST)
		below->ops->write(below, TEXT, sizeof TEXT - 1);
	else if (tls->err == ERR_TLS && SSL_get_state(tls->ssl) == TLS_ST_BEFORE && !tls->below_ended)
		below->ops->write(below, ALERT, sizeof ALERT);
}

/* Closing with bytes unread would reset, and take the alert along. */
static void discard_unread(struct tls_stream *tls)
{
	char bytes[DISCARD_BYTES];
	struct stream *below = tls->layer.below;
	for (int i = 0; i < DISCARD_READS && below->ops->read(below, bytes, sizeof bytes) > 0; i++)
		;
}

static int tls_open(struct stream *stream)
{
	struct tls_stream *tls = tls_of(stream);
	if (tls->is_open || tls->err)
		return tls->err;
	int err = tls->ssl ? 0 : begin(tls);
	if (err)
		return err;
	forget_errors();
	tls->below_reads = OPENING_READS;
	tls->held_back = false;
	int result = SSL_do_handshake(tls->ssl);
	if (result == 1) {
		SSL_set_info_callback(tls->ssl, note_aside);
		tls->is_open = tls->may_hold = true;
		tls->read_needs = tls->write_needs = 0;
		return 0;
	}
	err = outcome_of(tls, result, &tls->read_needs);
	if (err == UV_EAGAIN)
		return err;
	if (!err) /* a close_notify in place of a handshake */
		err = cut_off(tls);
	if (SSL_is_server(tls->ssl))
		answer_plain(tls);
	discard_unread(tls);
	forget_errors();
	return err;
}

/* What the next step of the handshake waits for: the first one, for who speaks first to be able to. */
static unsigned needs_to_open(const struct tls_stream *tls)
{
	if (!tls->ssl)
		return side_of(tls)->speaks_first ? STREAM_WRITE : STREAM_READ;
	return tls->read_needs ? tls->read_needs : STREAM_READ;
}

static unsigned tls_needs(const struct stream *stream, unsigned wanted)
{
	const struct tls_stream *tls = tls_of(stream);
	unsigned needs = 0;
	if (!tls->is_open)
		return needs_to_open(tls);
	if (wanted & STREAM_READ)
		needs |= tls->read_needs ? tls->read_needs : STREAM_READ;
	if (wanted & STREAM_WRITE)
		needs |= tls->write_needs ? tls->write_needs : STREAM_WRITE;
	return needs;
}

/* ---- reading ---- */

static bool tls_has_input(const struct stream *stream)
{
	const struct tls_stream *tls = tls_of(stream);
	if (tls->held_back || tls->owes_end)
		return true;
	if (!tls->is_open)
		return false;
	return (tls->may_hold && SSL_has_pending(tls->ssl)) || stream_holds_input(tls->layer.below);
}

static bool has_too_many_asides(const struct tls_stream *tls)
{
	return tls->asides > ASIDES_OF_CLIENT_MAX &&
	       (SSL_is_server(tls->ssl) || tls->asides > ASIDES_OF_SERVER_MAX);
}

/* Record after record, while they are at hand. */
static ssize_t tls_read(struct stream *stream, void *to, size_t n)
{
	struct tls_stream *tls = tls_of(stream);
	size_t got = 0, more;
	int result;
	if (tls->err)
		return tls->err;
	forget_errors();
	tls->below_reads = READING_READS;
	tls->held_back = tls->owes_end = false;
	do {
		result = SSL_read_ex(tls->ssl, (char *)to + got, n - got, &more);
		got += result == 1 ? more : 0;
	} while (result == 1 && got < n && SSL_has_pending(tls->ssl));
	if (got)
		tls->asides = 0;
	else if (has_too_many_asides(tls))
		return fail_with(tls, ERR_TLS, failure_of_asides(tls->ssl));
	if (result == 1) {
		tls->may_hold = true;
		tls->read_needs = 0;
		return (ssize_t)got;
	}
	int err = outcome_of(tls, result, &tls->read_needs);
	forget_errors();
	tls->may_hold = false;
	tls->owes_end = got && err != UV_EAGAIN;
	return got ? (ssize_t)got : err;
}

static size_t tls_unread(struct stream *stream)
{
	const struct tls_stream *tls = tls_of(stream);
	struct stream *below = tls->layer.below;
	size_t pending = tls->ssl && tls->is_open ? (size_t)SSL_pending(tls->ssl) : 0;
	while (!below->ops->unread)
		below = stream_below(below);
	return pending + below->ops->unread(below);
}

/* ---- writing ---- */

/*
 * A record at a time: who has more to write comes back at once with the rest. As packets of their own, a second record
 * of a few bytes would cost both ends as much as the first.
 */
static ssize_t write_record(struct tls_stream *tls, const void *from, size_t n, bool more_comes)
{
	size_t put;
	if (tls->err)
		return tls->err;
	forget_errors();
	tls->more_comes = more_comes || n > SSL3_RT_MAX_PLAIN_LENGTH;
	int result = SSL_write_ex(tls->ssl, from, n, &put);
	tls->more_comes = false;
	if (result == 1) {
		tls->write_needs = 0;
		return (ssize_t)put;
	}
	int err = outcome_of(tls, result, &tls->write_needs);
	forget_errors();
	return err ? err : UV_EPIPE;
}

static ssize_t tls_write(struct stream *stream, const void *from, size_t n)
{
	return write_record(tls_of(stream), from, n, false);
}

static ssize_t tls_write_more(struct stream *stream, const void *from, size_t n)
{
	return write_record(tls_of(stream), from, n, true);
}

static int tls_shutdown(struct stream *stream)
{
	struct tls_stream *tls = tls_of(stream);
	struct stream *below = tls->layer.below;
	if (tls->err)
		return tls->err;
	if (!tls->is_shut) {
		forget_errors();
		tls->more_comes = true; /* the end of the stream below */
		int result = SSL_shutdown(tls->ssl);
		tls->more_comes = false;
		int err = result < 0 ? outcome_of(tls, result, &tls->write_needs) : 0;
		forget_errors();
		if (err)
			return err;
	}
	tls->is_shut = true;
	return below->ops->shutdown(below);
}

/* ---- the end, and facts ---- */

static void tls_close(struct stream *stream, bool reset)
{
	struct tls_stream *tls = tls_of(stream);
	struct stream *below = tls->layer.below;
	SSL_free(tls->ssl);
	free(tls->why_made);
	tls->ssl = NULL;
	tls->why = tls->why_made = NULL;
	below->ops->close(below, reset);
}

static enum close_reason tls_reason_of(int err)
{
	return err == ERR_TLS || err == ERR_OPENING_LATE ? REASON_TLS : REASON_NONE;
}

static const char *tls_failure(const struct stream *stream)
{
	return tls_of(stream)->why;
}

const struct stream_ops TLS_STREAM = {
	.name = "tls",
	.is_layer = true,
	.bytes = sizeof(struct tls_stream),
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.write_more = tls_write_more,
	.needs = tls_needs,
	.has_input = tls_has_input,
	.unread = tls_unread,
	.shutdown = tls_shutdown,
	.close = tls_close,
	.reason_of = tls_reason_of,
	.failure = tls_failure,
};

SSL *tls_stream_of(const struct stream_user *user)
{
	const struct stream *stream = stream_find(user, &TLS_STREAM);
	return stream && tls_of(stream)->is_open ? tls_of(stream)->ssl : NULL;
}
