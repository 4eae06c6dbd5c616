/* TLS of connections out: whom they trust, and what they are told of a server that will not do. */
#include "tls_steps.h"

#include "tls/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { CUT_STEP = 7 };

/* ---- a connection ---- */

static void the_first_event_of_a_connected_socket_begins_it(void **state)
{
	(void)state;
	make_both();
	ends_begin(&ends, client, server);
	assert_int_equal(stream_needs(&ends.client.user, STREAM_READ | STREAM_WRITE), STREAM_WRITE);
	assert_int_equal(stream_needs(&ends.server.user, STREAM_READ | STREAM_WRITE), STREAM_READ);
	ends.client.memory.window_bytes = 20;
	end_step(&ends.client);
	assert_int_equal(stream_needs(&ends.client.user, STREAM_READ | STREAM_WRITE), STREAM_WRITE);
	ends.client.memory.window_bytes = SIZE_MAX;
	end_step(&ends.client);
	assert_int_equal(stream_needs(&ends.client.user, STREAM_READ | STREAM_WRITE), STREAM_READ);
	ends_meet(&ends);
	expect_met();
	ends_free(&ends);
}

static void both_versions_meet_and_part(void **state)
{
	(void)state;
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		char byte;
		make_both();
		cap_server(version);
		meet();
		expect_met();
		assert_int_equal(SSL_version(ssl_of(&ends.client)), version);
		assert_int_equal(SSL_get_verify_result(ssl_of(&ends.client)), X509_V_OK);
		assert_string_equal(SSL_get_servername(ssl_of(&ends.server), TLSEXT_NAMETYPE_host_name),
				    "db.example");
		assert_int_equal(stream_shutdown(&ends.client.user), 0);
		ends_pass(&ends.client, &ends.server, SIZE_MAX);
		assert_int_equal(end_read(&ends.server, &byte, 1), 0);
		assert_true(ends_say(&ends.server, &ends.client, "the rest"));
		assert_int_equal(stream_shutdown(&ends.server.user), 0);
		ends_pass(&ends.server, &ends.client, SIZE_MAX);
		assert_int_equal(end_read(&ends.client, &byte, 1), 0);
		ends_free(&ends);
	}
}

static void it_does_not_matter_how_bytes_are_split(void **state)
{
	(void)state;
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		make_both();
		cap_server(version);
		ends_begin(&ends, client, server);
		ends.client.memory.read_max = ends.client.memory.write_max = 1;
		ends.server.memory.read_max = ends.server.memory.write_max = 1;
		ends_meet(&ends);
		expect_met();
		ends_free(&ends);
	}
}

/* ---- whom it trusts ---- */

static void the_certificate_is_for_who_was_asked_for(void **state)
{
	(void)state;
	static const char *const RIGHT[] = { "db.example", "DB.Example", "a.wild.example" };
	static const char *const WRONG[] = { "other.example", "example",  "a.b.wild.example",
					     "wild.example",  "10.0.0.8", "2001:db8::8" };
	make_server();
	for (size_t i = 0; i < sizeof RIGHT / sizeof *RIGHT; i++) {
		ask_for(RIGHT[i]);
		make_client();
		expect_meeting();
	}
	for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
		char why[256];
		ask_for(WRONG[i]);
		make_client();
		snprintf(why, sizeof why, "the server's certificate is not for %s", WRONG[i]);
		expect_refusal(why);
	}
}

static void an_address_is_verified_and_not_asked_for(void **state)
{
	(void)state;
	static const char *const ADDRESSES[] = { "10.0.0.7", "2001:db8::7" };
	make_server();
	for (int i = 0; i < 2; i++) {
		ask_for(ADDRESSES[i]);
		make_client();
		meet();
		expect_met();
		assert_null(SSL_get_servername(ssl_of(&ends.server), TLSEXT_NAMETYPE_host_name));
		ends_free(&ends);
	}
}

/* The subject's name counts no more: db.example, here. */
static void only_alternative_names_count(void **state)
{
	(void)state;
	show(&settings->identities->pairs[0], pem_sign(authority, "email:a@db.example", DAY_S));
	make_both();
	expect_refusal("the server's certificate is not for db.example");
}

static void a_stranger_is_not_trusted(void **state)
{
	(void)state;
	struct pem_authority *other = pem_authority_new("another");
	tls_file_deinit(&outgoing.authority);
	outgoing.authority = pem_authority_file(other);
	make_both();
	expect_refusal("the server's certificate is not trusted: unable to get local issuer certificate");
	pem_authority_free(other);
	tls_file_deinit(&outgoing.authority);
	outgoing.authority = (struct tls_file){ 0 }; /* the system's */
	make_client();
	expect_refusal("the server's certificate is not trusted: unable to get local issuer certificate");
}

static void one_that_has_ended_is_not_trusted(void **state)
{
	(void)state;
	show(&settings->identities->pairs[0], pem_sign(authority, "DNS:db.example", -10));
	make_both();
	expect_refusal("the server's certificate is not trusted: certificate has expired");
}

static void the_servers_own_certificate_can_be_the_authority(void **state)
{
	(void)state;
	const struct tls_file *certificate = &settings->identities->pairs[0].certificate;
	tls_file_deinit(&outgoing.authority);
	outgoing.authority = (struct tls_file){ .path = strdup("cert.pem"),
						.bytes = malloc(certificate->count),
						.count = certificate->count };
	memcpy(outgoing.authority.bytes, certificate->bytes, certificate->count);
	make_both();
	expect_meeting();
}

static void whoever_answers_is_taken_where_nothing_is_verified(void **state)
{
	(void)state;
	outgoing.verify = false;
	ask_for("other.example");
	make_both();
	meet();
	expect_met();
	assert_int_not_equal(SSL_get_verify_result(ssl_of(&ends.client)), X509_V_OK);
	assert_string_equal(SSL_get_servername(ssl_of(&ends.server), TLSEXT_NAMETYPE_host_name),
			    "other.example");
	ends_free(&ends);
}

static void rules_that_cannot_be_kept_are_refused(void **state)
{
	(void)state;
	static const char NO_NAME[] = "server_name: there is no name to verify a certificate for";
	char why[256];
	ask_for(".example");
	assert_null(tls_outgoing_context(&outgoing, why, sizeof why));
	assert_string_equal(why, NO_NAME);
	free(outgoing.server_name);
	outgoing.server_name = NULL;
	assert_null(tls_outgoing_context(&outgoing, why, sizeof why));
	assert_string_equal(why, NO_NAME);
	ask_for("db.example");
	outgoing.ciphers = strdup("NONE-SUCH");
	assert_null(tls_outgoing_context(&outgoing, why, sizeof why));
	assert_string_equal(why, "ciphers: OpenSSL knows no NONE-SUCH");
	free(outgoing.ciphers);
	outgoing.ciphers = NULL;
	show(&outgoing.pair, pem_sign(authority, "DNS:a", DAY_S));
	memset(outgoing.pair.certificate.bytes, 'x', outgoing.pair.certificate.count);
	assert_null(tls_outgoing_context(&outgoing, why, sizeof why));
	assert_string_equal(why, "cert.pem has no certificate that can be used: no start line");
	tls_file_deinit(&outgoing.pair.certificate);
	outgoing.pair.certificate = pem_authority_file(authority);
	assert_null(tls_outgoing_context(&outgoing, why, sizeof why));
	assert_string_equal(why, "key.pem is not the key of ca.pem");
}

/* ---- what both have to agree on ---- */

static uint8_t *alpn_of(const char *wire, size_t *bytes)
{
	*bytes = strlen(wire);
	return (uint8_t *)strdup(wire);
}

static void protocols_are_agreed_on(void **state)
{
	(void)state;
	const unsigned char *chosen;
	unsigned bytes;
	outgoing.alpn = alpn_of("\4resp\4chat", &outgoing.alpn_bytes);
	make_both();
	meet();
	expect_met();
	SSL_get0_alpn_selected(ssl_of(&ends.client), &chosen, &bytes);
	assert_int_equal(bytes, 0); /* the server knows of none */
	ends_free(&ends);
	settings->alpn = alpn_of("\4chat\2h2", &settings->alpn_bytes);
	make_server();
	meet();
	expect_met();
	SSL_get0_alpn_selected(ssl_of(&ends.client), &chosen, &bytes);
	assert_int_equal(bytes, 4);
	assert_memory_equal(chosen, "chat", 4);
	ends_free(&ends);
	memcpy(settings->alpn, "\4chut", 5);
	expect_refusal("the server speaks none of the protocols of tls.alpn");
}

static void versions_that_do_not_meet_are_told_of(void **state)
{
	(void)state;
	outgoing.min_version = TLS1_3_VERSION;
	make_both();
	expect_meeting();
	cap_server(TLS1_2_VERSION);
	expect_refusal("the server has no version of TLS that tls.min allows");
}

static void ciphers_that_do_not_meet_are_told_of(void **state)
{
	(void)state;
	outgoing.ciphers = strdup("ECDHE-ECDSA-CHACHA20-POLY1305");
	settings->ciphers = strdup("ECDHE-ECDSA-AES128-GCM-SHA256");
	make_both();
	expect_meeting(); /* by 1.3 */
	cap_server(TLS1_2_VERSION);
	expect_refusal("the server refuses the handshake: it has no cipher in common with us, or asks for a "
		       "certificate");
}

/* ---- our own certificate ---- */

static void demand_certificates(void)
{
	settings->client = TLS_CLIENT_REQUIRE;
	settings->authority = pem_authority_file(authority);
}

static void a_certificate_of_ours_is_shown_to_who_asks(void **state)
{
	(void)state;
	demand_certificates();
	outgoing.pair = pem_sign(authority, "DNS:us.example", DAY_S);
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		make_both();
		cap_server(version);
		meet();
		expect_met();
		assert_non_null(SSL_get0_peer_certificate(ssl_of(&ends.server)));
		ends_free(&ends);
	}
}

/* In 1.3 the client is done before the server has looked: it is told by what it reads first. */
static void expect_late_refusal(const char *why)
{
	char byte;
	meet();
	assert_true(ends.client.has_opened);
	assert_false(ends.server.has_opened);
	ends.client.err = (int)end_read(&ends.client, &byte, 1);
	expect_failure(&ends.client, why);
	ends_free(&ends);
}

static void a_server_that_does_not_like_ours_is_told_of(void **state)
{
	(void)state;
	struct pem_authority *other = pem_authority_new("another");
	demand_certificates();
	make_both();
	expect_late_refusal("the server asks for a certificate: tls.certificate and tls.key");
	cap_server(TLS1_2_VERSION);
	expect_refusal("the server refuses the handshake: it has no cipher in common with us, or asks for a "
		       "certificate");
	show(&outgoing.pair, pem_sign(other, "DNS:us.example", DAY_S));
	make_both();
	expect_late_refusal("the server does not trust our certificate");
	cap_server(TLS1_2_VERSION);
	expect_refusal("the server does not trust our certificate");
	show(&outgoing.pair, pem_sign(authority, "DNS:us.example", -10));
	make_both();
	expect_late_refusal("our certificate has ended, says the server");
	pem_authority_free(other);
}

/* ---- servers that are none ---- */

static void a_server_that_speaks_plainly_is_told_of(void **state)
{
	(void)state;
	static const char *const WORDS[] = { "-ERR unknown command\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n",
					     "220 mail ESMTP\r\n" };
	make_both();
	for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
		ends_begin(&ends, client, server);
		end_step(&ends.client);
		size_t said = ends.client.memory.outward.bytes;
		memory_stream_put(&ends.client.memory, WORDS[i], strlen(WORDS[i]));
		end_step(&ends.client);
		expect_failure(&ends.client, "the server does not speak TLS");
		assert_int_equal(ends.client.memory.outward.bytes, said); /* nobody is answered in HTTP */
		ends_free(&ends);
	}
}

static void a_server_that_leaves_is_told_of(void **state)
{
	(void)state;
	make_both();
	size_t all = 1;
	for (size_t cut = 0; cut < all; cut += cut ? CUT_STEP : 1) {
		ends_begin(&ends, client, server);
		end_step(&ends.client);
		ends_pass(&ends.client, &ends.server, SIZE_MAX);
		end_step(&ends.server);
		all = ends.server.memory.outward.bytes;
		ends_pass(&ends.server, &ends.client, cut);
		memory_stream_half_close(&ends.client.memory);
		for (int i = 0; i < 10; i++)
			end_step(&ends.client);
		expect_failure(&ends.client, cut ? "the server left in the middle of the handshake"
						 : "the server left without a word of TLS");
		ends_free(&ends);
	}
	assert_in_range(all, 500, 5000);
}

/* Its failure is the network's, and not of TLS. */
static void a_server_that_cannot_be_reached_is_no_failure_of_tls(void **state)
{
	(void)state;
	make_both();
	ends_begin(&ends, client, server);
	memory_stream_reset(&ends.client.memory);
	end_step(&ends.client);
	assert_int_equal(ends.client.err, UV_ECONNRESET);
	assert_null(stream_failure(&ends.client.user));
	ends_free(&ends);
}

static void an_end_without_a_word_is_a_reset(void **state)
{
	(void)state;
	char byte;
	make_both();
	meet();
	expect_met();
	memory_stream_half_close(&ends.client.memory);
	assert_int_equal(end_read(&ends.client, &byte, 1), UV_ECONNRESET);
	assert_string_equal(stream_failure(&ends.client.user), "cut off without a close_notify");
	ends_free(&ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OUTGOING(the_first_event_of_a_connected_socket_begins_it),
		OUTGOING(both_versions_meet_and_part),
		OUTGOING(it_does_not_matter_how_bytes_are_split),
		OUTGOING(the_certificate_is_for_who_was_asked_for),
		OUTGOING(an_address_is_verified_and_not_asked_for),
		OUTGOING(only_alternative_names_count),
		OUTGOING(a_stranger_is_not_trusted),
		OUTGOING(one_that_has_ended_is_not_trusted),
		OUTGOING(the_servers_own_certificate_can_be_the_authority),
		OUTGOING(whoever_answers_is_taken_where_nothing_is_verified),
		OUTGOING(rules_that_cannot_be_kept_are_refused),
		OUTGOING(protocols_are_agreed_on),
		OUTGOING(versions_that_do_not_meet_are_told_of),
		OUTGOING(ciphers_that_do_not_meet_are_told_of),
		OUTGOING(a_certificate_of_ours_is_shown_to_who_asks),
		OUTGOING(a_server_that_does_not_like_ours_is_told_of),
		OUTGOING(a_server_that_speaks_plainly_is_told_of),
		OUTGOING(a_server_that_leaves_is_told_of),
		OUTGOING(a_server_that_cannot_be_reached_is_no_failure_of_tls),
		OUTGOING(an_end_without_a_word_is_a_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
