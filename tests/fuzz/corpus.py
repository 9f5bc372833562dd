"""Awkward inputs for each target: where fuzzers begin, and what every run of the tests tries again.

An input that once broke something is kept here, with a word on what it broke.
"""

from __future__ import annotations

__all__ = ["CORPUS"]

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

CORPUS: dict[str, list[bytes]] = {
    "http1": [
        b"",
        b"\0\0" + _OK,
        b"\x01\0"
        + _OK
        + b"HTTP/1.1 503 X\r\nRetry-After: 120\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n",
        b"\0\0HTTP/1.1 429 X\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 1\r\n\r\nx",
        b"\0\0HTTP/1.1 200 OK\r\nRetry-After: 99999999999999999999\r\n\r\nuntil the end",
        b"\x07\0HTTP/1.0 200 OK\r\n\r\n",
        b"\0\0HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"\0\0HTTP/2 200\r\n\r\n",
        b"\0\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\x15\x03\x03\0\x02\x02\x50",
        b"\0\x05<>HTTP/1.1 100 Continue\r\n\r\n<>" + _OK,
        b"\x21\x04<>" + _OK,
        b"\0\x0cHTTP/1.1 200 OK\r\n<>X: y\r\n<>\r\n",
        b"\x40\x10HTTP/1.1 200 OK\r\n<>X<>: y\r\n\r\n",
        b"\xff\x10HTTP/1.1 200 OK\r\nX: <>y<>\r\n\r\n",
        b"\xff\x10HTTP/1.1 200 <>y<>\r\n\r\n",
        b"\xff\x10HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n<>1\r\nx\r\n<>0\r\n\r\n",
        b"\xff\x10HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;<>x<>\r\n",
        b"\0\x10HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n<>T: x\r\n<>\r\n",
        b"\xff\x10HTTP/1.1 200 OK\r\n\r\n<>until the end, which does not come<>",
        b"\0\0HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"\0\0HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"\0\0HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\0\0HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzzz",
        b"\x03\0HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n" + _OK,
        b"\0\0\r\n\r\n" + _OK,
        b"\0\0HTTP/1.1 999 \xff\xfe\r\n\xff: \xff\r\n\r\n",
        b"\0\0HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"\0\0HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        # A head that the limit just lets pass, and a last piece that is shorter than the others: broke the target,
        # which allowed a head the length of whichever piece came last.
        b"\x40\x10HTTP/1.1 200 OK\r\n<>X<>: 1 200 Oy\r\n\r\nwhich ends a little beyond a piece.",
        # The same, with a head that ends one piece later.
        b"\x40\x10HTTP/1.1 200 OK\r\n<>X<>: one field's value, of which there is\r\nY: another, as long\r\n\r\nbody",
    ],
    "cookies": [
        b"",
        b"pAWSALB=a",
        b"sAWSALB=a; Expires=Wed, 21 Oct 2037 07:28:00 GMT; Path=/<>AWSALBCORS=b; Path=/; SameSite=None; Secure",
        b"pAWSALB=a; Max-Age=60 day<>AWSALB=b; Max-Age=-1<>AWSALB=c; Max-Age=" + b"9" * 5_000,
        b"pAWSALB=a; Max-Age=0<>AWSALB=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b'pAWSALB="quoted"<>AWSALB="half<>AWSALB=a"b<>AWSALB=a,b<>AWSALB=a b<>AWSALB=\\',
        b"pAWSALB=a\r\nX: injected<>AWSALB=\0<>AWSALB=\x7f<>AWSALB=\xff<>AWSALB\xff=a<>AWSALBAPP-\r\n=a",
        b"pAWSALB<>=a<>AWSALB=<>AWSALBAPP-=a<>AWSALBAPP-0=a; Path=/v1<>AWSALBAPP-0=b; Path=/v1/metrics/x",
        b"p" + b"<>".join(b"AWSALBAPP-%d=%s" % (number, b"v" * 1_000) for number in range(20)),
        b"pAWSALB=" + b"a" * 5_000,
        b"pAWSALB=a" + b";" * 4_000,
        b"pAWSALB=a;" + b" path=/;" * 500,
    ],
    "http_date": [
        b"",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"Fri, 31 Dec 9999 23:59:60 GMT",
        b"Thu, 29 Feb 1900 00:00:00 GMT",
        b"Tue, 29 Feb 2000 00:00:00 GMT",
        b"1 jan 1601 0:0:0",
        b"1 jan 1600 0:0:0",
        b"1 jan 00 0:0:0",
        b"0:0:0 0:0:0 1 1 1 jan jan 70 70",
        b"\xd9\xa1 jan 1994 08:49:37",
        b"1" * 200,
        b"\0\xff:::,,;;-- GMT",
    ],
    # A program of `_Interference`: what to do, to how many bytes; then for each step what either side does.
    "tls_handshake": [
        b"",
        b"\x00\xff\x00\xff\x00\xff",
        b"\x01\x10\x05",
        b"\x01\x05\x04",
        b"\x02\x00\x2dHTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n",
        b"\x02\x00\x09\x16\x03\x03\0\x04\0\0\0\0",
        b"\x02\x00\x07\x15\x03\x03\0\x02\x02\x28",
        b"\x04\xff\x0c",
        b"\x05\xff\x05\xff",
        b"\x00\x7f\x02\x00\x06\x14\x03\x03\0\x01\x01",
        b"\x00\x7f\x03\xff\x03\xff",
    ],
    "tls_content": [
        b"",
        b"\x00\x05hello\x00\xff",
        b"\x00\x05hello\x01\x10\x07",
        b"\x00\x05hello\x01\x03\x04\x00\x05again",
        b"\x00\x05hello\x03\xff",
        b"\x00\x05hello\x04\xff\x0c",
        b"\x00\x05hello\x05\x05\x00\xff",
        b"\x05\x00\xff\x02\x00\xff\x00\x02hi\x00\xff",
        b"\xfd\x00\xff\xfd\x00\xff\xfd\x00\xff",
        b"\x03\x00\xff\x02\x00\xff\x00\x02hi",
        b"\x02\x00\xff\x02\x02\x18\x18\x17\x03\x03\0\x13                   ",
        b"\x00\x05hello\x02\xff\x07\x15\x03\x03\0\x02\x01\0",
        b"\x00\x05hello\x02\xff\x15\x17\x03\x03\xff\xff                ",
    ],
}
