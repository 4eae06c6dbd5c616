/* Whom the system trusts. It is asked once for the process, and so these tests have a process of their own. */
#include "tls_steps.h"

#include "tls/authorities.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/tls_authorities_XXXXXX";

static int authorities_begin(void **state)
{
	outgoing_begin(state);
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, outgoing.authority.bytes, outgoing.authority.count),
			 outgoing.authority.count);
	close(fd);
	setenv("SSL_CERT_FILE", path, 1);
	tls_file_deinit(&outgoing.authority);
	outgoing.authority = (struct tls_file){ 0 };
	return 0;
}

static int authorities_end(void **state)
{
	unlink(path);
	return outgoing_end(state);
}

static void whom_the_system_trusts_is_trusted(void **state)
{
	(void)state;
	make_both();
	expect_meeting();
	ask_for("other.example");
	make_client();
	expect_refusal("the server's certificate is not for other.example");
}

static void they_are_read_once(void **state)
{
	(void)state;
	X509_STORE *first = authorities_of_system(), *second = authorities_of_system();
	assert_non_null(first);
	assert_ptr_equal(first, second);
	X509_STORE_free(first);
	X509_STORE_free(second);
}

/* An authority for one context is none for others, which share those of the system. */
static void an_authority_of_ones_own_is_not_the_systems(void **state)
{
	(void)state;
	struct pem_authority *other = pem_authority_new("another");
	ask_for("db.example");
	outgoing.authority = pem_authority_file(other);
	make_both();
	expect_refusal("the server's certificate is not trusted: unable to get local issuer certificate");
	show(&settings->identities->pairs[0], pem_sign(other, "DNS:db.example", DAY_S));
	make_server();
	expect_meeting();
	tls_file_deinit(&outgoing.authority);
	outgoing.authority = (struct tls_file){ 0 };
	make_client();
	expect_refusal("the server's certificate is not trusted: unable to get local issuer certificate");
	pem_authority_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whom_the_system_trusts_is_trusted),
		cmocka_unit_test(they_are_read_once),
		cmocka_unit_test(an_authority_of_ones_own_is_not_the_systems),
	};
	return cmocka_run_group_tests(tests, authorities_begin, authorities_end);
}
