"""What mail servers and providers really say, each with its step, by what it is about; {to} is the
recipient.

Texts of Postfix, Exim, qmail, Gmail, Microsoft 365, Amazon SES, SendGrid, Mailgun, Postmark, Zoho
and cPanel, and of RFC 5321, 3463, 5248, 7372 and 7505.
"""

OF_THIS_MAIL = [
    (
        "RCPT TO",
        (
            "450 4.2.0 <{to}>: Recipient address rejected: Greylisted, see "
            "http://postgrey.schweikert.ch"
        ),
    ),
    ("RCPT TO", "450 4.1.2 <{to}>: Recipient address rejected: Domain not found"),
    ("RCPT TO", "450 try again later"),
    ("RCPT TO", "450"),
    ("RCPT TO", "451 4.7.1 Greylisting in action, please come back later"),
    ("RCPT TO", "451 Greylisted, please try again in 300 seconds"),
    ("RCPT TO", "451 please try again later"),
    ("RCPT TO", "451 4.7.1 Try again later"),
    ("RCPT TO", "450 4.7.1 try again"),
    ("RCPT TO", "452 4.2.2 The email account that you tried to reach is over quota"),
    ("RCPT TO", "452 mailbox full"),
    (
        "RCPT TO",
        (
            "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a "
            "separate transaction."
        ),
    ),
    (
        "RCPT TO",
        (
            "450 4.2.1 The user you are trying to contact is receiving mail at a rate that "
            "prevents additional messages"
        ),
    ),
    ("RCPT TO", "451 host lookup did not complete"),
    ("end of data", "451 4.7.1 Try again later"),
    ("end of data", "452 4.2.2 mailbox full"),
    ("end of data", "450 greylisted"),
    (
        "RCPT TO",
        "550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table",
    ),
    (
        "RCPT TO",
        "550 5.1.1 <{to}>: Recipient address rejected: undeliverable"
        " address: host mx.evil.com[1.2.3.4]"
        " said: 550 5.4.5 Daily user sending quota exceeded (in reply to RCPT TO command)",
    ),
    (
        "RCPT TO",
        (
            "550 <{to}>: undeliverable address: host mx.evil.com[1.2.3.4] said: 550 5.4.5 Daily "
            "user sending quota exceeded"
        ),
    ),
    ("RCPT TO", "550 5.7.1 no thanks"),
    ("RCPT TO", "550 no such user"),
    ("RCPT TO", "556 5.1.10 Recipient address has null MX"),
    ("RCPT TO", "550 5.4.4 Unable to route: no mail hosts for domain"),
    ("RCPT TO", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
    ("RCPT TO", "550 5.2.1 The email account that you tried to reach is disabled"),
    ("RCPT TO", "550 5.2.1 account disabled"),
    ("RCPT TO", "552 5.2.2 User over quota"),
    ("RCPT TO", "552 Requested mail action aborted: exceeded storage allocation"),
    ("RCPT TO", "550 <{to}>: account suspended"),
    ("RCPT TO", "550 Mailbox disabled"),
    ("end of data", "554 5.7.1 Message rejected as spam"),
    (
        "end of data",
        "550 5.7.1 [1.2.3.4] Our system has detected that this message is likely unsolicited mail",
    ),
    (
        "end of data",
        (
            "550 5.7.0 This message was blocked because its content presents a potential security "
            "issue"
        ),
    ),
    ("end of data", "552 5.3.4 Message size exceeds fixed limit"),
    ("end of data", "552 message size limit exceeded"),
    ("end of data", "554 5.6.0 content"),
    ("end of data", "550 5.7.1 message contains URL listed by SURBL"),
    ("DATA", "554 5.5.1 Error: no valid recipients"),
    ("RCPT TO", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required"),
    ("RCPT TO", "550 5.7.1 You do not have permission to send to this recipient"),
    ("RCPT TO", "550 5.7.1 not authorized to send to the list"),
    ("RCPT TO", "599 hm"),
    ("RCPT TO", "499 hm"),
    ("end of data", "599 hm"),
]

OF_US = [
    (
        "RCPT TO",
        "450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error.",
    ),
    ("RCPT TO", "454 4.7.1 <{to}>: Relay access denied"),
    ("end of data", "454 Throttling failure: Maximum sending rate exceeded."),
    ("end of data", "454 Throttling failure: Daily message quota exceeded."),
    ("RCPT TO", "550 account suspended"),
    ("RCPT TO", "550 5.7.1 Your account has been suspended"),
    ("RCPT TO", "550 5.4.5 Daily user sending quota exceeded."),
    ("RCPT TO", "550 5.4.5 https://support.google.com/mail/?p=DailyLimitExceeded"),
    (
        "end of data",
        (
            "550-5.4.5 Daily user sending limit exceeded. For more on\r\n550 5.4.5 sending limits "
            "go to"
        ),
    ),
    ("RCPT TO", "554 relay denied"),
    ("RCPT TO", "550 relay not permitted"),
    ("RCPT TO", "550 5.7.1 Relaying denied"),
    ("RCPT TO", "550 5.7.1 Unable to relay"),
    ("RCPT TO", "550 5.7.0 Mail relay denied [1.2.3.4]"),
    ("RCPT TO", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    ("RCPT TO", "554 5.7.1 <{to}>: Relay access denied"),
    ("RCPT TO", "550 5.7.64 TenantAttribution; Relay Access Denied"),
    ("RCPT TO", "550 5.7.1 We do not relay"),
    ("RCPT TO", "550 not verified"),
    (
        "end of data",
        "554 Message rejected: Email address is not verified."
        " The following identities failed the check in region US-EAST-1: {to}",
    ),
    (
        "end of data",
        (
            "550 The from address does not match a verified Sender Identity. Mail cannot be sent "
            "until this error is resolved."
        ),
    ),
    ("end of data", "550 From header sender domain not verified."),
    ("RCPT TO", "550 5.7.1 domain not verified"),
    ("end of data", "554 5.2.252 SendAsDenied; a not allowed to send as b"),
    (
        "end of data",
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
    ),
    ("end of data", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    ("end of data", "550 5.1.8 Access denied, bad outbound sender AS(42004)"),
    ("end of data", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
    (
        "end of data",
        (
            "550 5.1.90 Your message can't be sent because you've reached your daily limit for "
            "message recipients"
        ),
    ),
    ("RCPT TO", "550 5.7.705 Access denied, tenant has exceeded threshold"),
    ("RCPT TO", "550 5.7.26 This mail is unauthenticated"),
    ("end of data", "550 5.7.23 SPF validation failed"),
    ("end of data", "550 SPF check failed"),
    ("RCPT TO", "550 sending limit exceeded"),
    (
        "RCPT TO",
        "554 5.7.1 <{to}>: Recipient address rejected: You have exceeded your Outmail quota.",
    ),
    (
        "RCPT TO",
        (
            "550 Domain example.org has exceeded the max emails per hour (250/250 (100%)) allowed. "
            "Message discarded."
        ),
    ),
    ("RCPT TO", "550 5.4.6 Unusual sending activity detected. Please try after sometime"),
    ("RCPT TO", "550 5.7.1 Sender signature not found"),
    ("RCPT TO", "553 5.7.1 <no-reply@example.org>: Sender address rejected: not owned by user x"),
    ("RCPT TO", "550 Sender verify failed"),
    (
        "RCPT TO",
        "554 5.7.1 Service unavailable; Client host [1.2.3.4] blocked using zen.spamhaus.org",
    ),
    ("RCPT TO", "504 5.5.2 <host>: Helo command rejected: need fully-qualified hostname"),
    ("RCPT TO", "530 5.7.0 Must issue a STARTTLS command first"),
    ("RCPT TO", "503 AUTH first"),
    ("RCPT TO", "550 Unauthenticated senders not allowed"),
    ("RCPT TO", "550 5.7.1 Authentication required"),
    ("RCPT TO", "550 5.7.1 SMTP AUTH is required"),
    ("RCPT TO", "550 5.7.13 user account disabled"),
    ("RCPT TO", "525 5.7.13 disabled"),
    ("MAIL FROM", "550 5.7.1 no"),
    (
        "MAIL FROM",
        (
            "421 Domain sandbox1.mailgun.org is not allowed to send: Please activate your Mailgun "
            "account"
        ),
    ),
    ("login", "451 Authentication failed: Maximum credits exceeded"),
    ("greeting", "554 no"),
]

OF_THE_SERVER = [
    ("RCPT TO", "451 Temporary local problem - please try later"),
    ("RCPT TO", "451 4.3.0 <{to}>: Temporary lookup failure"),
    ("RCPT TO", "451 4.3.5 Server configuration problem"),
    ("RCPT TO", "451 4.7.1 Service unavailable - try again later"),
    ("RCPT TO", "451 Requested action aborted: local error in processing"),
    ("RCPT TO", "452 insufficient system storage"),
    ("RCPT TO", "452 4.3.1 Insufficient system storage"),
    ("RCPT TO", "450 4.4.2 bad connection"),
    ("RCPT TO", "451 4.4.3 directory"),
    ("RCPT TO", "421 4.2.0 closing"),
    ("RCPT TO", "421"),
    ("RCPT TO", "451 4.7.500 Server busy. Please try again later from [1.2.3.4]"),
    ("end of data", "451 Temporary service failure"),
    ("end of data", "451 4.3.0 queue file write error"),
    ("end of data", "451 try later"),
    ("RCPT TO", "503 5.5.4 Bad sequence"),
    ("MAIL FROM", "452 4.3.1 full"),
    ("MAIL FROM", "450 4.7.1 wait"),
    ("login", "454 4.7.0 Temporary authentication failure"),
    ("greeting", "421 Too many concurrent SMTP connections"),
    ("end of data", "554 5.3.2 system not accepting network messages"),
    ("end of data", "499 hm"),
]
