#include "tls/failure.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

enum { MADE_BYTES = 512 };

static const char *client_failure(const SSL *ssl, int reason)
{
	switch (reason) {
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
		return "the client speaks HTTP, without TLS";
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
		return SSL_get_state(ssl) == TLS_ST_BEFORE ? "the client does not speak TLS"
							   : "a broken record";
	case SSL_R_UNSUPPORTED_PROTOCOL:
		return "the client has no version of TLS that tls.min allows";
	case SSL_R_NO_SHARED_CIPHER:
		return "the client has no cipher in common with this server";
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return "the client has sent no certificate";
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return X509_verify_cert_error_string(SSL_get_verify_result(ssl));
	default:
		return NULL;
	}
}

/* Whom the certificate was to be for. OpenSSL writes an address of IPv6 with all of its zeros. */
static void put_name(SSL *ssl, char *text, size_t size)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	const char *host = X509_VERIFY_PARAM_get0_host(param, 0);
	char *address = host ? NULL : X509_VERIFY_PARAM_get1_ip_asc(param), shown[INET6_ADDRSTRLEN];
	struct in6_addr bytes;
	const char *name = host ? host : address ? address : "this server";
	if (address && inet_pton(AF_INET6, address, &bytes) == 1)
		name = inet_ntop(AF_INET6, &bytes, shown, sizeof shown);
	snprintf(text, size, "the server's certificate is not for %s", name);
	OPENSSL_free(address);
}

static const char *verification_failure(SSL *ssl, char **made)
{
	long result = SSL_get_verify_result(ssl);
	*made = malloc(MADE_BYTES);
	if (!*made)
		return "the server's certificate is not trusted";
	if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH)
		put_name(ssl, *made, MADE_BYTES);
	else
		snprintf(*made, MADE_BYTES, "the server's certificate is not trusted: %s",
			 X509_verify_cert_error_string(result));
	return *made;
}

/* What a server thinks of our certificate, or of there being none. NULL: it is about something else. */
static const char *refusal_of_ours(int reason)
{
	switch (reason) {
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "the server asks for a certificate: tls.certificate and tls.key";
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
		return "the server does not trust our certificate";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return "our certificate has ended, says the server";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
		return "our certificate was withdrawn, says the server";
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
		return "the server does not let us in";
	default:
		return NULL;
	}
}

static const char *server_failure(SSL *ssl, int reason, char **made)
{
	switch (reason) {
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
		return SSL_get_state(ssl) == TLS_ST_CW_CLNT_HELLO ? "the server does not speak TLS"
								  : "a broken record";
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return "the server has no version of TLS that tls.min allows";
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
	case SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY:
		return "the server refuses the handshake: it has no cipher in common with us, or asks for a "
		       "certificate";
	case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
		return "the server speaks none of the protocols of tls.alpn";
	case SSL_R_TLSV1_UNRECOGNIZED_NAME:
		return "the server does not know the name that it is asked for";
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return verification_failure(ssl, made);
	default:
		return refusal_of_ours(reason);
	}
}

const char *failure_text(SSL *ssl, char **made)
{
	unsigned long error = ERR_peek_last_error();
	int reason = ERR_GET_REASON(error);
	const char *text =
	    SSL_is_server(ssl) ? client_failure(ssl, reason) : server_failure(ssl, reason, made);
	if (!text && error)
		text = ERR_reason_error_string(error);
	return text ? text : "a broken record";
}

const char *failure_of_leaving(const SSL *ssl, bool has_heard)
{
	if (!SSL_is_server(ssl))
		return has_heard ? "the server left in the middle of the handshake"
				 : "the server left without a word of TLS";
	/* Who has not said a word was only looking. */
	return has_heard ? "the client left in the middle of the handshake" : NULL;
}

const char *failure_of_asides(const SSL *ssl)
{
	return SSL_is_server(ssl) ? "the client changes its keys over and over"
				  : "the server changes its keys, or sends tickets, over and over";
}
