# 2000 silent peers, 2000 that stop after a few bytes of ClientHello, 200 that dribble a byte a second; all come again.
import socket, select, sys, time, errno
port=int(sys.argv[1]); hello=bytes([22,3,1,2,0,1,0,1,0xfc,3,3])
ep=select.epoll(); conns={}
def connect(kind):
    s=socket.socket(); s.setblocking(False)
    try: s.connect(('127.0.0.1',port))
    except BlockingIOError: pass
    except OSError: s.close(); return
    conns[s.fileno()]=(s,kind); ep.register(s, select.EPOLLIN|select.EPOLLHUP|(select.EPOLLOUT if kind else 0))
kinds=[0]*2000+[1]*2000+[2]*200
for k in kinds: connect(k)
last=time.time(); ended=0
while True:
    for fd,ev in ep.poll(0.2):
        s,kind=conns[fd]
        if ev&(select.EPOLLIN|select.EPOLLHUP|select.EPOLLERR):
            ep.unregister(s); s.close(); del conns[fd]; ended+=1; connect(kind); continue
        if ev&select.EPOLLOUT:
            ep.modify(s, select.EPOLLIN|select.EPOLLHUP)
            if kind==1:
                try: s.send(hello)
                except OSError: pass
    if time.time()-last>1:
        last=time.time()
        for s,kind in list(conns.values()):
            if kind==2:
                try: s.send(hello[:1])
                except OSError: pass
