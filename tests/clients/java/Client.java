// Asks for chats as a stock Java program does: with one client of the default version, which offers HTTP/2 with each
// request (`Upgrade: h2c`). Run from its source: java Client.java http://127.0.0.1:1088

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.stream.Collectors;
import java.util.stream.Stream;

class Client {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();
    private static URI chats;

    public static void main(String[] given) throws Exception {
        chats = URI.create(given[0] + "/v1/chat/completions");
        if (CLIENT.version() != HttpClient.Version.HTTP_2) {
            throw new AssertionError("this client does not offer HTTP/2");
        }
        byte[] asks = body(false).getBytes(StandardCharsets.UTF_8);
        for (int i = 0; i < 2; i++) {
            HttpResponse<String> whole = ask(BodyPublishers.ofByteArray(asks), BodyHandlers.ofString());
            System.out.println("whole " + whole.statusCode() + " " + whole.version() + " " + whole.body());
        }
        // Of a body whose length is not known beforehand, Java sends chunks.
        BodyPublisher chunks = BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(asks));
        HttpResponse<String> chunked = ask(chunks, BodyHandlers.ofString());
        System.out.println("whole " + chunked.statusCode() + " " + chunked.version() + " " + chunked.body());
        for (int i = 0; i < 2; i++) {
            HttpResponse<Stream<String>> stream = ask(BodyPublishers.ofString(body(true)), BodyHandlers.ofLines());
            String events = stream.body().filter(line -> !line.isEmpty()).collect(Collectors.joining("\t"));
            System.out.println("stream " + stream.statusCode() + " " + stream.version() + " " + events);
        }
    }

    private static String body(boolean stream) {
        return "{\"model\":\"hello\",\"stream\":" + stream + ",\"messages\":[{\"role\":\"user\",\"content\":\"Gr\u00fc\u00dfe\"}]}";
    }

    private static <T> HttpResponse<T> ask(BodyPublisher body, BodyHandler<T> handler) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(chats)
            .header("Content-Type", "application/json")
            .timeout(Duration.ofSeconds(20))
            .POST(body)
            .build();
        return CLIENT.send(request, handler);
    }
}
