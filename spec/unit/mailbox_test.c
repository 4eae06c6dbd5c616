#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

enum { SENDERS = 4, EACH = 50000 };

struct message {
	struct mail mail; /* first: a mail is its message */
	unsigned sender, serial;
};

struct sender {
	pthread_t thread;
	struct mailbox *box;
	sem_t *wake; /* NULL: the owner polls */
	unsigned id, wakes;
};

static void an_empty_box_gives_nothing(void **state)
{
	(void)state;
	struct mailbox box;
	mailbox_init(&box);
	assert_null(mailbox_take(&box));
}

static void mail_comes_in_the_order_it_was_pushed(void **state)
{
	(void)state;
	struct mailbox box;
	struct mail mails[3];
	mailbox_init(&box);
	for (unsigned i = 0; i < 3; i++)
		mailbox_push(&box, &mails[i]);
	struct mail *taken = mailbox_take(&box);
	for (unsigned i = 0; i < 3; i++, taken = taken->next)
		assert_ptr_equal(taken, &mails[i]);
	assert_null(taken);
	assert_null(mailbox_take(&box));
}

static void only_the_first_push_asks_for_a_wake(void **state)
{
	(void)state;
	struct mailbox box;
	struct mail a, b;
	mailbox_init(&box);
	assert_true(mailbox_push(&box, &a));
	assert_false(mailbox_push(&box, &b));
	assert_ptr_equal(mailbox_take(&box), &a);
	assert_true(mailbox_push(&box, &b));
	assert_ptr_equal(mailbox_take(&box), &b);
}

static void *send_all(void *data)
{
	struct sender *sender = data;
	for (unsigned i = 0; i < EACH; i++) {
		struct message *message = malloc(sizeof *message);
		if (!message)
			abort();
		message->sender = sender->id;
		message->serial = i;
		if (!mailbox_push(sender->box, &message->mail))
			continue;
		sender->wakes++;
		if (sender->wake)
			sem_post(sender->wake);
	}
	return NULL;
}

/* Checks and frees a batch; returns how many there were. */
static unsigned receive(struct mail *mail, unsigned expected[SENDERS])
{
	unsigned n = 0;
	for (; mail; n++) {
		struct message *message = (struct message *)mail;
		mail = mail->next;
		assert_true(message->sender < SENDERS);
		assert_int_equal(message->serial, expected[message->sender]++);
		free(message);
	}
	return n;
}

static void exchange(sem_t *wake)
{
	struct mailbox box;
	struct sender senders[SENDERS];
	unsigned expected[SENDERS] = { 0 }, received = 0, takes = 0, wakes = 0;
	mailbox_init(&box);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .box = &box, .wake = wake, .id = i };
		assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
	}
	while (received < SENDERS * EACH) {
		if (wake)
			while (sem_wait(wake) != 0)
				;
		unsigned n = receive(mailbox_take(&box), expected);
		if (wake)
			assert_true(n > 0);
		else if (n == 0)
			sched_yield();
		received += n;
		takes += n > 0;
	}
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		wakes += senders[i].wakes;
		assert_int_equal(expected[i], EACH);
	}
	assert_int_equal(wakes, takes);
	assert_null(mailbox_take(&box));
}

/* Polling, nothing but the box itself orders the threads: a missing barrier shows under TSan. */
static void many_senders_lose_nothing_and_keep_their_order(void **state)
{
	(void)state;
	exchange(NULL);
}

static void waking_when_asked_to_is_enough(void **state)
{
	(void)state;
	sem_t wake;
	assert_int_equal(sem_init(&wake, 0, 0), 0);
	exchange(&wake);
	sem_destroy(&wake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_box_gives_nothing),
		cmocka_unit_test(mail_comes_in_the_order_it_was_pushed),
		cmocka_unit_test(only_the_first_push_asks_for_a_wake),
		cmocka_unit_test(many_senders_lose_nothing_and_keep_their_order),
		cmocka_unit_test(waking_when_asked_to_is_enough),
	};
	return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
