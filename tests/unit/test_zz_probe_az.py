import io, uuid, gzip
from tests.rigs.azure import azure_rig
from tests.conftest import Store
from syncagent.drivers.azure_pages import parse_page, _parse_slowly, in_byte_order
from syncagent.model import ObjectInfo
def mk(rig):
    s = rig.store("azure", "p-"+uuid.uuid4().hex[:16]); return s, s.open()
def put(b,k,d=b"x"): return b.driver.put(k, io.BytesIO(d))
def test_probe(azure_rig):
    s,b = mk(azure_rig)
    ks = ["a","b\ufb01","b\U0001F600","b\U0001F601x","c"]
    for k in ks: put(b,k)
    for after in ks:
        got=[o.key for p in b.list(after=after) for o in p]; want=sorted(k for k in ks if k>after)
        print("after",ascii(after), got==want, ascii(got))
    s,b = mk(azure_rig)
    for k in ["cr\rkey","tr.","seg./x","back\\slash","\ufffe","a\x01b","per%20c", "<&>\"'"]:
        try:
            put(b,k); print(ascii(k),"->",ascii([o.key for p in b.driver.list() for o in p][-20:]))
            b.driver.delete(k)
        except Exception as e: print(ascii(k),"ERR",type(e).__name__,e)
    for k in ["a/../b","./x"]:
        try: put(b,k); print(ascii([o.key for p in b.driver.list() for o in p]))
        except Exception as e: print(k,"ERR",type(e).__name__,e)
    print([o.key for p in b.driver.list() for o in p])
    c=b.driver._client()
    from azure.storage.blob import ContentSettings
    c.upload_blob("gz", gzip.compress(b"hello"*100), content_settings=ContentSettings(content_encoding="gzip"))
    with b.open("gz") as f: print("gz raw kept:", f.read()==gzip.compress(b"hello"*100), b.stat("gz").size)
    put(b,"snap"); c.get_blob_client("snap").create_snapshot()
    try: b.driver.delete("snap")
    except Exception as e: print("snap delete", type(e).__name__, e)
    print(next(iter(b.driver.list()))[0], b.driver.stat("gz"))
    from azure.core.rest import HttpRequest
    r=c._client._send_request(HttpRequest("GET", c.url+"?restype=container&comp=list"), stream=True, raw_response_hook=lambda r: r.http_response.read())
    print(r.status_code, r.content.decode())
    s,b2=mk(azure_rig)
    c=b2.driver._client()
    print(c._client._send_request(HttpRequest("GET", c.url+"?restype=container&comp=list")).content.decode())
