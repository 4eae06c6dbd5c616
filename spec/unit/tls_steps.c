#include "tls_steps.h"

#include "base/err.h"
#include "tls/stream.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

struct pem_authority *authority;
struct tls_settings *settings;
struct tls_outgoing outgoing;
struct tls_context *server, *client;
struct ends ends;

int outgoing_begin(void **state)
{
	(void)state;
	authority = pem_authority_new("an authority");
	settings = pem_settings();
	show(&settings->identities->pairs[0],
	     pem_sign(authority, "DNS:db.example,DNS:*.wild.example,IP:10.0.0.7,IP:2001:db8::7", DAY_S));
	outgoing = (struct tls_outgoing){ .server_name = strdup("db.example"),
					  .verify = true,
					  .authority = pem_authority_file(authority),
					  .min_version = TLS1_2_VERSION };
	return 0;
}

int outgoing_end(void **state)
{
	(void)state;
	tls_context_free(server);
	tls_context_free(client);
	server = client = NULL;
	tls_outgoing_deinit(&outgoing);
	tls_settings_free(settings);
	pem_authority_free(authority);
	assert_int_equal(ERR_peek_error(), 0);
	return 0;
}

void make_server(void)
{
	char why[256];
	tls_context_free(server);
	server = tls_context_new(settings, why, sizeof why);
	assert_non_null(server);
}

void make_client(void)
{
	char why[256];
	tls_context_free(client);
	client = tls_outgoing_context(&outgoing, why, sizeof why);
	if (!client)
		fail_msg("%s", why);
}

void make_both(void)
{
	make_server();
	make_client();
}

void ask_for(const char *name)
{
	free(outgoing.server_name);
	outgoing.server_name = strdup(name);
}

void show(struct tls_pair *pair, struct tls_pair shown)
{
	tls_file_deinit(&pair->certificate);
	tls_file_deinit(&pair->key);
	*pair = shown;
}

void cap_server(int version)
{
	SSL *ssl = server->side->begin(server);
	SSL_CTX_set_max_proto_version(SSL_get_SSL_CTX(ssl), version);
	SSL_free(ssl);
}

SSL *ssl_of(struct end *end)
{
	SSL *ssl = tls_stream_of(&end->user);
	assert_non_null(ssl);
	return ssl;
}

void meet(void)
{
	ends_begin(&ends, client, server);
	ends_meet(&ends);
}

void expect_met(void)
{
	assert_true(ends.client.has_opened && ends.server.has_opened);
	assert_true(ends_say(&ends.client, &ends.server, "PING"));
	assert_true(ends_say(&ends.server, &ends.client, "+PONG"));
}

void expect_failure(struct end *end, const char *why)
{
	assert_int_equal(end->err, ERR_TLS);
	assert_int_equal(stream_reason_of(&end->user, end->err), REASON_TLS);
	assert_string_equal(stream_failure(&end->user), why);
}

void expect_refusal(const char *why)
{
	meet();
	assert_false(ends.client.has_opened);
	expect_failure(&ends.client, why);
	assert_false(ends.server.has_opened);
	ends_free(&ends);
}

void expect_meeting(void)
{
	meet();
	expect_met();
	ends_free(&ends);
}
