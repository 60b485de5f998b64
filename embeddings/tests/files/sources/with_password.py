"""Stores a document under a password: with_password.py FROM TO FILTER."""
import os, subprocess, sys, time
import uno
from com.sun.star.beans import NamedValue, PropertyValue

def value(name, value):
    made = PropertyValue()
    made.Name, made.Value = name, value
    return made

source, target, kind = sys.argv[1:]
office = subprocess.Popen(["soffice", "--headless", "--norestore", "--accept=pipe,name=samples;urp;",
                           "-env:UserInstallation=file:///tmp/office-profile-uno"], stdout=subprocess.DEVNULL)
resolver = uno.getComponentContext().ServiceManager.createInstance("com.sun.star.bridge.UnoUrlResolver")
for attempt in range(60):
    try:
        context = resolver.resolve("uno:pipe,name=samples;urp;StarOffice.ComponentContext")
        break
    except Exception:
        time.sleep(0.5)
desktop = context.ServiceManager.createInstance("com.sun.star.frame.Desktop")
document = desktop.loadComponentFromURL("file://" + os.path.abspath(source), "_blank", 0, (value("Hidden", True),))
if kind == "calc8":
    password = value("Password", "secret")
else:
    named = []
    for name, said in (("CryptoType", "Standard"), ("OOXPassword", "secret")):
        named.append(NamedValue())
        named[-1].Name, named[-1].Value = name, said
    password = value("EncryptionData", uno.Any("[]com.sun.star.beans.NamedValue", tuple(named)))
document.storeToURL("file://" + os.path.abspath(target), (value("FilterName", kind), password))
document.close(True)
try:
    desktop.terminate()
except Exception:
    pass
office.wait()
