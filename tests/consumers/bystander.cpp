// A part of the consumer that does not use mailroom: it must be compiled as if mailroom were not there.
static_assert(__cplusplus < 202002L, "the language mode of mailroom leaked into a target that does not link it");
int bystander();
int bystander() { return 0; }
